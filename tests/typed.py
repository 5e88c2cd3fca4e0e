"""Command lines as typed, and what they are refused with."""

import pathlib

import pytest

from cvr.configs import checks, command_line
from cvr.configs.config import ConfigError
from cvr.configs.plan import make_plan

ROOT = str(pathlib.Path(__file__).parents[1])


def parse(line='', load_stored=None):
  return command_line.parse(['run.py', *line.split()], load_stored)


def refusal(line):
  with pytest.raises(ConfigError) as caught:
    parse(line)
  message = str(caught.value)
  assert message.isprintable()
  return message


def evaluating(*flags):
  return parse(' '.join(['--mode=evaluate', '--model_dir=x', *flags]))


def warnings(cfg, examples=50000):
  """What is said of a run on so many examples."""
  plan = make_plan(cfg, examples, classes=10, replicas=1)
  return checks.warnings(cfg, plan.total, plan.warmup)
