"""A function of rows, run on two replicas."""

import tensorflow as tf


def on_replicas(strategy, function, parts):
  """function(parts[r]) on replica r -> its result, each leaf once a replica."""
  values = strategy.experimental_distribute_values_from_function(
    lambda context: tf.constant(parts[context.replica_id_in_sync_group])
  )

  @tf.function(autograph=False)
  def run(values):
    return strategy.run(function, args=(values,))

  return tf.nest.map_structure(strategy.experimental_local_results, run(values))
