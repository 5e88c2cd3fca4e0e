"""What tests/golden/names.txt says of a method."""

import behaviour


def sections():
  """{heading: the names below it}."""
  found, heading = {}, None
  for line in (behaviour.GOLDEN / 'names.txt').read_text().splitlines():
    if line.startswith('  '):
      found[heading].add(line.strip())
    elif line:
      heading = line
      found[heading] = set()
  return found


def tensors(method):
  return sections()[f'{method}: tensors']


def step_metrics(method):
  """The tags that a train step reports: the others are of held-out pairs."""
  names = sections()['every method'] | sections()[f'{method}: metrics']
  watched = ('information/', 'health/')
  return {n for n in names - {'step'} if not n.startswith(watched)}
