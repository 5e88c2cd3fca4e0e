"""Sheets of small images in one file each, and the HTML of one of them."""

import base64
from typing import NamedTuple

from cvr.report.charts import escape


class Sheet(NamedTuple):
  """Tiles of one size, row by row in one JPEG."""

  data: bytes
  columns: int
  count: int
  side: int  # of a tile, in pixels
  cell: int  # the distance from tile to tile


def place(sheet, i):
  """-> (column, row) of tile i."""
  return i % sheet.columns, i // sheet.columns


class Sheets:
  """The sheets of a page; each is in it once."""

  def __init__(self):
    self._all = []

  def add(self, sheet):
    """-> the number of a sheet in this page."""
    self._all.append(sheet)
    return len(self._all) - 1

  def tile(self, number, i, says='', size=None):
    """An image of a sheet. size: its side on the page; None: as style.css."""
    column, row = place(self._all[number], i)
    side = f';--t:{size}px' if size else ''
    label = f'role="img" aria-label="{escape(says)}"' if says else ''
    return (
      f'<i class="tile h{number}" style="--x:{column};--y:{row}{side}" '
      f'{label}></i>'
    )

  def css(self):
    """The rules that tiles need: a picture and how many tiles are in a row."""
    rules = []
    for number, sheet in enumerate(self._all):
      data = base64.b64encode(sheet.data).decode()
      # Small images are shown larger than they are: their pixels stay visible.
      sharp = 'image-rendering:pixelated;' if sheet.side <= 48 else ''
      rules.append(
        f'.h{number}{{--n:{sheet.columns};'
        f'--p:{sheet.cell / sheet.side:.5f};{sharp}'
        f'background-image:url(data:image/jpeg;base64,{data})}}'
      )
    return '\n'.join(rules)
