"""The program end to end: train, evaluate, finetune, refuse."""

import json
import os
import shlex
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import run
import small_kinds
import tiny_methods
from cvr.checkpoints import files
from cvr.configs.config import Config
from cvr.training import health
from cvr.training import start as starting
from processes import worker
from small_runs import (
  C_BYOL,
  QUICK,
  ROOT,
  WATCH,
  assert_same_bits,
  events,
  flags,
  tensors,
)
from tiny_methods import wide_sums

pytestmark = pytest.mark.usefixtures('tiny_encoder')


def wide_sums_of_a_step(line, prepared):
  """Tells which sums of three tensors or more TensorFlow's own graph has."""
  if prepared:
    starting.set_up(Config(use_tpu=False, model_dir='m'))
  step = tiny_methods.Traced(
    tiny_methods.tiny('contrastive_ceb', weight_decay=1e-3),
    encoder=tiny_methods.Glance,
  )
  batch = tiny_methods.make_batch(np.random.default_rng(0))
  graphs = step.optimised(batch)
  line.send((len(graphs), [n for g in graphs for n in wide_sums(g)]))


def test_a_run_keeps_additions_two_by_two(start):
  """AddN has more than one order: a run would not repeat (see sums.py)."""
  children = [
    start(wide_sums_of_a_step, prepared) for prepared in (True, False)
  ]
  (graphs, found), (others, left_alone) = (c.line.recv() for c in children)
  assert graphs and others
  assert found == [] and left_alone


def test_train_evaluate_and_what_is_left(images, tmp_path, capsys):
  argv = flags(images, tmp_path, *C_BYOL, '--keep_checkpoint_max=2', WATCH)
  assert run.main(argv) == 0
  out = capsys.readouterr().out
  assert 'Running on the CPU' in out and 'step 6/6' in out
  assert '10 pairs of views' in out and 'Health' not in out
  assert files.steps(tmp_path) == [4, 6]
  result = json.loads((tmp_path / 'result.json').read_text())
  assert result == json.loads((tmp_path / 'result_6.json').read_text())
  assert result['global_step'] == 6.0 and result['eval/images'] == 10.0
  accuracy = result['eval/label_top_1_accuracy']
  assert f'top-1 {100 * accuracy:.2f}%' in out
  # Two classes have no top-5.
  assert not any('top_5' in name for name in result) and 'top-5' not in out
  assert 'top-1 lies between' in out and '95% interval over 10 images' in out
  record = json.loads((tmp_path / 'config.json').read_text())
  assert record['config']['pretrain_loss'] == 'byol_ceb'
  assert record['class_names'] == ['dark', 'light']
  assert record['argv'] == argv
  assert json.loads((tmp_path / 'flags.json').read_text())['kappa_e'] == 64
  rows = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(row) for row in rows]
  assert [row['step'] for row in rows] == [3, 6, 6]
  for name in (
    'train/byol_loss', 'train/contrast_loss', 'train/i_xzx_y',
    'train/i_yzy_x', 'train/h_e_zx_x', 'train/h_b_zx_y', 'train/ema_alpha',
    'train/supervised_loss', 'train/supervised_acc', 'learning_rate',
    'train/weight_norm', 'train/grad_norm', 'train/ceb_beta_log',
    'train/bad_images', 'train/images_per_second', 'train/input_wait',
    'information/entropy', 'information/residual', 'health/feature_std',
  ):  # fmt: skip
    assert np.isfinite(rows[0][name]), name
  # TensorBoard has the same numbers under the same names.
  written = {
    (name, row['step']) for row in rows for name in row.keys() - {'step'}
  }
  assert events(tmp_path).keys() == written
  # A second command evaluates, without a flag about the architecture.
  again = ['run.py', '--mode=eval', f'--model_dir={tmp_path}']
  assert run.main(again) == 0
  found = json.loads((tmp_path / 'eval' / 'result.json').read_text())
  assert found == result


def by_script(argv, folder):
  """-> (output, status) of the chief, and the output of the other worker."""
  more = {'LOGS': str(folder), 'PROGRAM': 'tests/tiny_run.py'}
  more['TINY_ENCODER'] = 'glance'
  chief = in_a_shell(
    f'bash scripts/multi_worker.sh 2 {shlex.join(argv)}', **more
  )
  other = (folder / 'worker1.log').read_text()
  return chief.stdout + chief.stderr, chief.returncode, other


def by_srun(argv, folder, start):
  """The same of what srun would start: two tasks on this machine."""
  step = {
    'SLURM_JOB_ID': str(os.getpid()),
    'SLURM_STEP_ID': '0',
    'SLURM_STEP_NUM_TASKS': '2',
    'SLURM_STEP_NODELIST': 'localhost',
    'SLURM_STEP_TASKS_PER_NODE': '2',
    'SLURM_NODEID': '0',
  }
  logs = [folder / f'task{task}' for task in range(2)]
  tasks = [
    start(worker, argv, str(log), step | {'SLURM_LOCALID': str(task)}).process
    for task, log in enumerate(logs)
  ]
  for task in tasks:
    task.join()
  chief, other = [log.read_text() for log in logs]
  return chief, tasks[0].exitcode or tasks[1].exitcode, other


def test_two_workers_train_and_resume_as_one_process_does(
  images, tmp_path, start, glance
):
  """The losses of 20 steps, and the files, of one process."""

  def argv(model_dir, steps):
    # Small steps: rounding is not amplified, while other data would show.
    # Nothing here may depend on the number of steps.
    return flags(
      images, model_dir, f'--train_steps={steps}', '--train_summary_steps=1',
      '--checkpoint_steps=10', '--mode=train', '--allow_config_change',
      '--optimizer=momentum', '--learning_rate=0.0003', '--ceb_beta=1',
      '--learning_rate_schedule=constant', '--pretrain_loss=contrastive_ceb',
      *QUICK, WATCH,
    )[1:]  # fmt: skip

  def losses(model_dir):
    rows = (model_dir / 'metrics.jsonl').read_text().splitlines()
    return {
      r['step']: (r['train/total_loss'], r['information/infonce_bound'])
      for r in map(json.loads, rows)
    }

  one, two = tmp_path / 'one', tmp_path / 'two'
  chief, status, other = by_script(argv(two, 10), tmp_path)
  assert status == 0, chief + other
  # One of them talks and writes.
  assert 'Done: 10 steps' in chief and 'Done' not in other
  chief, status, other = by_srun(argv(two, 20), tmp_path, start)
  assert status == 0, chief + other
  assert '2 replicas on 2 workers' in chief
  assert 'Resuming from step 10' in chief and 'Done' not in other
  assert files.steps(two) == [0, 10, 20]
  assert run.main(['run.py', *argv(one, 20)]) == 0
  one, two = losses(one), losses(two)
  assert sorted(one) == sorted(two) == list(range(1, 21))
  for step, loss in one.items():
    assert two[step] == pytest.approx(loss, rel=1e-4), step


def test_workers_start_again_where_one_is_killed(images, tmp_path):
  """F31: the run ends with the bits of one in which nobody died."""

  def argv(model_dir):
    return flags(
      images, tmp_path / model_dir, '--mode=train', '--train_steps=8',
      '--checkpoint_steps=2', '--train_summary_steps=1', *QUICK,
    )[1:]  # fmt: skip

  chief, status, other = by_script(argv('whole'), tmp_path)
  assert status == 0, chief + other
  marker = tmp_path / 'once'
  done = in_a_shell(
    f'bash scripts/multi_worker.sh --restart=1 2 {shlex.join(argv("killed"))}',
    LOGS=str(tmp_path / 'logs'), PROGRAM='tests/faulty_run.py',
    TINY_ENCODER='glance', FAULT=f'1 4 SIGKILL {marker}',
  )  # fmt: skip
  assert done.returncode == 0, done.stdout + done.stderr
  assert marker.exists()
  assert done.stdout.count('all workers start again (1 of 1)') == 1
  assert 'Resuming from step' in done.stdout
  assert_same_bits(
    tmp_path / 'whole' / 'ckpt-8', tmp_path / 'killed' / 'ckpt-8'
  )


def test_a_collapse_is_named_and_may_end_the_run(
  images, tmp_path, capsys, monkeypatch, glance
):
  argv = flags(images, tmp_path, '--mode=train', *QUICK, WATCH)
  argv += ['--train_summary_steps=1', '--checkpoint_steps=100']
  argv += ['--stop_on_collapse']
  # Nothing is as far apart as that.
  monkeypatch.setattr(health, '_ONE_POINT', 2.0)
  assert run.main(argv) == 3
  told = capsys.readouterr()
  assert told.out.count('Health at step 2: collapse') == 1
  assert 'collapsed at step 2 (--stop_on_collapse)' in told.err
  assert 'Traceback' not in told.err
  assert files.steps(tmp_path) == [0, 2]
  # It goes on where it was, and need not end.
  argv += ['--stop_on_collapse=false']
  assert run.main(argv) == 0
  out = capsys.readouterr().out
  assert 'Resuming from step 2' in out
  assert out.count('Health at step') == 1 and 'Health at step 4' in out
  rows = (tmp_path / 'metrics.jsonl').read_text().splitlines()
  rows = [json.loads(row) for row in rows]
  assert [row['step'] for row in rows] == [1, 2, 3, 4, 5, 6]
  assert all(row['health/feature_std'] < 2.0 for row in rows)


def test_linear_evaluation_and_finetuning_from_a_checkpoint(
  images, tmp_path, capsys
):
  base = tmp_path / 'base'
  assert run.main(flags(images, base, '--mode=train')) == 0
  before = tensors(base / 'ckpt-6')
  for block, moves in ((4, False), (-1, True), (2, True)):
    out = tmp_path / f'block{block}'
    argv = [
      *flags(images, out, '--train_mode=finetune', f'--checkpoint={base}'),
      f'--fine_tune_after_block={block}',
      '--optimizer=momentum',
    ]
    assert run.main(argv) == 0
    assert 'Loaded encoder from' in capsys.readouterr().out
    after = tensors(out / 'ckpt-6')

    def moved(stage, after=after):
      return any(
        not np.array_equal(after[name], before[name])
        for name in before
        if f'encoder/stages/{stage}/' in name
        and 'Momentum' not in name
        and name in after
        and 'SLOT' not in name
      )

    # Stage 0 is the stem. Frozen stages keep their moving statistics too.
    assert moved(0) == (block == -1)
    assert moved(4) == moves
    head = [n for n in after if n.startswith('probe/') and 'SLOT' not in n]
    assert any(not np.array_equal(after[n], before[n]) for n in head)
    assert json.loads((out / 'result.json').read_text())['eval/images'] == 10


def test_unlabelled_images_train_without_a_probe(tmp_path, capsys, glance):
  rng = np.random.default_rng(1)
  (tmp_path / 'flat').mkdir()
  for i in range(9):
    data = tf.io.encode_png(rng.integers(0, 255, (18, 18, 1), np.uint8))
    (tmp_path / 'flat' / f'{i}.png').write_bytes(data.numpy())
  argv = flags(tmp_path / 'flat', tmp_path / 'run', '--train_steps=2')
  assert run.main(argv) == 0
  assert '  probe ' not in capsys.readouterr().out
  assert files.steps(tmp_path / 'run') == [0, 2]


def test_without_an_evaluation_split_a_run_is_trained_and_says_so(
  images, tmp_path, capsys, glance
):
  (tmp_path / 'mine').mkdir()
  (tmp_path / 'mine' / 'train').symlink_to(images / 'train')
  argv = flags(tmp_path / 'mine', tmp_path / 'run', '--train_steps=1', *QUICK)
  assert run.main(argv) == 0
  out = capsys.readouterr().out
  assert 'Note: --dataset=folder:' in out and 'evaluation after' in out
  assert '(validation, val or test). It has: train.' in out
  assert not (tmp_path / 'run' / 'result.json').exists()
  assert run.main([*argv, '--mode=eval']) == 2
  assert '--eval_split=...' in capsys.readouterr().err
  assert run.main([*argv, '--mode=eval', '--eval_split=train']) == 0


def test_the_quickstart_takes_other_data(images, tmp_path, capsys, glance):
  small = [word for word in flags(images, tmp_path) if 'warmup' not in word]
  assert run.main([*small, '--preset=quickstart', '--train_steps=1']) == 0
  assert f'(folder:{images}, validation)' in capsys.readouterr().out


@pytest.mark.parametrize('kind', small_kinds.MAKE)
def test_every_kind_of_data_is_trained_and_evaluated_on(
  kind, tmp_path, capsys, glance
):
  name = small_kinds.make(kind, tmp_path / 'data')
  argv = flags('', tmp_path / 'run', '--train_steps=2', *QUICK)
  assert run.main([*argv, f'--dataset={name}']) == 0
  assert f'{name}: 22 examples, 3 classes' in capsys.readouterr().out
  result = json.loads((tmp_path / 'run' / 'result.json').read_text())
  assert result['eval/images'] == 7


def test_a_loss_that_is_no_number_stops_without_a_checkpoint(
  images, tmp_path, capsys
):
  argv = flags(images, tmp_path, '--learning_rate=1e30', '--optimizer=momentum')
  assert run.main(argv) == 3
  assert '--learning_rate' in capsys.readouterr().err
  last = tensors(tmp_path / f'ckpt-{files.steps(tmp_path)[-1]}')
  assert all(np.isfinite(v).all() for v in last.values() if v.dtype.kind == 'f')


@pytest.mark.parametrize(
  'more, wanted',
  [
    (['--train_batch_size=64'], '24 examples'),
    (['--resume=must'], 'no checkpoint'),
    (['--eval_split=nonsense'], 'nonsense'),
    (['--model_dir=/proc/none'], '/proc/none cannot be written'),
    (['--use_tpu=true', '--tpu_name=nobody'], '--use_tpu=true'),
  ],
)
def test_refusals_are_one_line_with_the_next_step(
  images, tmp_path, capsys, more, wanted
):
  assert run.main(flags(images, tmp_path / 'r', *more)) == 2
  err = capsys.readouterr().err.strip()
  assert wanted in err and 'Traceback' not in err


def test_another_architecture_is_refused(images, tmp_path, capsys, glance):
  more = ('--mode=train', *QUICK)
  assert run.main(flags(images, tmp_path, '--train_steps=1', *more)) == 0
  before = (tmp_path / 'config.json').read_text()
  changed = ('--train_steps=2', '--proj_out_dim=4')
  argv = flags(images, tmp_path, *changed, *more)
  assert run.main(argv) == 2
  err = capsys.readouterr().err
  assert '--proj_out_dim=4, was 8; --train_steps=2, was 1. ' in err
  argv.append('--allow_config_change')
  assert run.main(argv) == 2
  assert (tmp_path / 'config.json').read_text() == before
  assert 'another architecture' in capsys.readouterr().err


def test_resume_policies(images, tmp_path, capsys, glance):
  argv = flags(images, tmp_path, '--mode=train', '--train_steps=1', *QUICK)
  assert run.main(argv) == 0
  assert run.main([*argv, '--resume=never']) == 2
  assert 'up to step 1' in capsys.readouterr().err
  assert run.main([*argv, '--resume=must']) == 0
  assert run.main([*argv, '--fresh_start']) == 0
  assert (tmp_path / 'old-ckpt-1.index').exists()
  assert files.steps(tmp_path) == [0, 1]


def in_a_shell(command, **env):
  return subprocess.run(
    ['bash', '-c', command],
    cwd=ROOT,
    capture_output=True,
    text=True,
    env={**os.environ, 'PYTHON': sys.executable, 'PYTHONPATH': ROOT, **env},
  )


def test_another_number_of_replicas_is_said(images, tmp_path, capsys, glance):
  argv = [*flags(images, tmp_path, '--mode=train', *QUICK), '--train_steps=2']
  assert run.main(argv) == 0
  path = tmp_path / 'config.json'
  record = json.loads(path.read_text())
  assert record['replicas'] == 1
  path.write_text(json.dumps(record | {'replicas': 2}))
  capsys.readouterr()
  assert run.main([*argv, '--train_steps=4', '--allow_config_change']) == 0
  out = capsys.readouterr().out
  assert out.count('had 2 replicas and now has 1') == 1
  assert 'Resuming from step 2' in out
  assert run.main([*argv, '--train_steps=6', '--allow_config_change']) == 0
  assert 'replicas' not in capsys.readouterr().out


def test_help_and_typing_errors_come_from_the_program_itself():
  shown = in_a_shell('$PYTHON run.py --help')
  assert shown.returncode == 0 and '--kappa_e' in shown.stdout
  shown = in_a_shell('$PYTHON run.py --help | head -n 1')
  assert shown.stdout.startswith('python run.py') and not shown.stderr
  wrong = in_a_shell('$PYTHON run.py --kapa_e=3')
  assert wrong.returncode == 2
  assert wrong.stderr == (
    'run.py: --kapa_e: no such flag; did you mean --kappa_e or --kappa_b?\n'
  )
  table = in_a_shell('$PYTHON run.py --preset=byol --print_config')
  assert table.returncode == 0 and 'byol_loss_weight' in table.stdout


def test_what_tensorflow_prints_at_import_is_shown_when_it_matters(tmp_path):
  module = tmp_path / 'tensorflow.py'
  start = (
    '$PYTHON -c "from cvr.startup import quiet_start; quiet_start(); '
    'import tensorflow"'
  )

  def call(**env):
    return in_a_shell(start, PYTHONPATH=str(tmp_path), **env)

  env = {'TF_CPP_MIN_LOG_LEVEL': '2'}
  module.write_text("import os; os.write(2, b'low-level noise')")
  assert not call(**env).stderr and call(**env).returncode == 0
  assert 'noise' in call(TF_CPP_MIN_LOG_LEVEL='0').stderr
  module.write_text("import os; os.write(2, b'the reason'); 1 / 0")
  assert 'the reason' in call(**env).stderr
  assert 'ZeroDivisionError' in call(**env).stderr
