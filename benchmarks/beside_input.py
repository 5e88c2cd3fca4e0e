"""Two random crops of every JPEG by other libraries, for benchmarks.beside.

  python -m benchmarks.beside_input FOLDER

Run with a Python that has simplejpeg, opencv-python-headless and nvidia-dali.
Bytes of 224 px come out, as from our input pipeline in device mode.
"""

import concurrent.futures
import math
import os
import pathlib
import random
import sys
import time

import cv2
import numpy as np
import nvidia.dali.fn as fn
import nvidia.dali.types as types
import simplejpeg
from nvidia.dali import pipeline_def

from benchmarks import turns

SIZE, BATCH, SECONDS = 224, 32, 2.0
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
CORES = len(os.sched_getaffinity(0))


def rate(batches):
  """Images per second of an endless iterator, after as long a start."""
  for _ in range(2):
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < SECONDS:
      next(batches)
      count += 1
    found = BATCH * count / (time.perf_counter() - began)
  return found


def box(height, width):
  """A random part of an image: top, left, height, width."""
  for _ in range(10):
    area = random.uniform(*AREA) * height * width
    aspect = math.exp(random.uniform(*map(math.log, ASPECT)))
    w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    if w <= width and h <= height:
      return random.randint(0, height - h), random.randint(0, width - w), h, w
  return 0, 0, height, width


def by_opencv(paths):
  """Decoded by simplejpeg, cropped and resized by OpenCV, in threads."""
  cv2.setNumThreads(1)

  def views(path):
    image = simplejpeg.decode_jpeg(pathlib.Path(path).read_bytes())
    crops = []
    for _ in range(2):
      top, left, h, w = box(*image.shape[:2])
      part = image[top : top + h, left : left + w]
      crops.append(
        cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
      )
    return crops

  def batches():
    with concurrent.futures.ThreadPoolExecutor(CORES) as pool:
      ahead = []
      while True:
        while len(ahead) < 3:
          some = random.choices(paths, k=BATCH)
          ahead.append([pool.submit(views, path) for path in some])
        done = [future.result() for future in ahead.pop(0)]
        yield [np.stack(view) for view in zip(*done, strict=True)]

  return lambda: rate(batches())


def by_dali(folder):
  """Its own operations, on the CPU."""

  @pipeline_def(batch_size=BATCH, num_threads=CORES, device_id=None)
  def two_views():
    files, _ = fn.readers.file(file_root=folder, random_shuffle=True)
    image = fn.decoders.image(files)
    return tuple(
      fn.random_resized_crop(
        image, size=(SIZE, SIZE), random_area=AREA,
        random_aspect_ratio=ASPECT, interp_type=types.INTERP_CUBIC,
        antialias=False,
      )
      for _ in range(2)
    )  # fmt: skip

  def batches():
    pipeline = two_views()
    pipeline.build()
    while True:
      yield pipeline.run()

  return lambda: rate(batches())


def main(folder):
  folder = pathlib.Path(folder) / 'train'
  paths = sorted(folder.glob('*/*.jpg'))
  cases = {
    'simplejpeg and OpenCV': by_opencv(paths),
    'DALI': by_dali(str(folder)),
  }
  turns.serve(cases)


if __name__ == '__main__':
  main(sys.argv[1])
