"""Pictures in a PNG by matplotlib, for slides and where no browser is."""

import importlib
import io
import textwrap


def contact_sheet(title, rows, boxes=None):
  """Rows of images with captions -> a PNG; None without matplotlib.

  rows: (name, [(image [h, w, 3], caption)]). boxes: {(row, column): [(left,
  top, width, height), ...]} to draw on an image, in its pixels.
  """
  try:
    figure = importlib.import_module('matplotlib.figure').Figure
    patches = importlib.import_module('matplotlib.patches')
  except ImportError:
    return None
  across = max((len(images) for _, images in rows), default=1)
  made = figure(
    figsize=(1.15 * across + 1.4, 1.4 * len(rows) + 0.6), layout='constrained'
  )
  grid = made.subplots(len(rows), across, squeeze=False)
  for i, (name, images) in enumerate(rows):
    for j, axes in enumerate(grid[i]):
      axes.set(xticks=[], yticks=[])
      axes.spines[:].set_visible(False)
      if j < len(images):
        image, caption = images[j]
        axes.imshow(image)
        axes.set_xlabel(textwrap.fill(caption, 18), fontsize=7)
      for k, (x, y, w, h) in enumerate((boxes or {}).get((i, j), ())):
        colour = ('#0072B2', '#D55E00')[k % 2]
        axes.add_patch(
          patches.Rectangle(
            (x, y), w, h, fill=False, edgecolor=colour, linewidth=1.5
          )
        )
    grid[i, 0].set_ylabel(
      name, fontsize=8, rotation=0, ha='right', va='center', labelpad=8
    )
  made.suptitle(title, fontsize=10)
  file = io.BytesIO()
  made.savefig(file, dpi=130, format='png')
  return file.getvalue()
