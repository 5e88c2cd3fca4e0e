"""The suite `transfer` on known features."""

import pytest

from cvr.evaluation.features import Look
from cvr.evaluation.subject import Missing
from cvr.evaluation.suites import transfer
from known_features import Encoder, make_images
from small_data import encoded, write

pytestmark = pytest.mark.usefixtures('quick_heads')


def test_transfer_reports_what_is_missing_and_goes_on(make_subject, tmp_path):
  bird = make_images(tmp_path / 'birds', {'train': 30, 'test': 10})
  craft = make_images(tmp_path / 'craft', {'train': 10, 'val': 10, 'test': 9})
  sets = f'birdsnap={bird},dtd=folder:{tmp_path}/none,aircraft={craft}'
  encoder = Encoder()
  subject, _ = make_subject(encoder, transfer_sets=sets)
  by_name = {n.name: n for n in transfer.suite(subject)}
  assert isinstance(by_name['dtd'], Missing)
  assert 'there is no folder' in by_name['dtd'].why
  bird, craft = by_name['birdsnap'], by_name['aircraft']
  assert (bird.value, bird.metric, bird.images) == (1.0, 'top_1', 30)
  assert (craft.value, craft.metric) == (1.0, 'mean_per_class')
  # BYOL's share of the 90 training images, and a split of its own.
  assert bird.protocol['held_out'] == round(90 * 4981 / (42405 + 4981))
  assert craft.protocol['held_out'] == 30
  assert all(look == Look(crop=1.0) for _, look in encoder.seen)
  assert 'not 42,405' in bird.protocol['note']


def test_a_transfer_set_keeps_an_image_of_every_class_to_fit(
  make_subject, tmp_path
):
  # A fifth of 9 pets are 2; of 8 classes only one may be held out.
  pets = tmp_path / 'pets'
  names = [f'c{i}' for i in range(8)]
  make_images(pets, {'train': 1, 'test': 2}, names)
  write(f'{pets}/train/c0/more.png', encoded(9))
  ones = make_images(tmp_path / 'ones', {'train': 1, 'test': 2}, names)
  places = f'pets=folder:{pets},birdsnap={ones}'
  subject, _ = make_subject(Encoder(dim=8), transfer_sets=places)
  found = {n.name: n for n in transfer.suite(subject)}
  assert found['pets'].protocol['held_out'] == 1
  assert found['pets'].protocol['note'].startswith('pets: train has 8 images')
  assert 'too few to hold some out' in found['birdsnap'].why
