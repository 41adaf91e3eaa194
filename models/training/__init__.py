"""Slices -> the weights of a fold.

run               the command line, without torch           (run_folder, run_record: what lies there already)
fold              one fold, from its slices to its files    (kinds: what differs between the kinds of runs)
learner           fastai's learner                          (steps, dividing: one step; callbacks, averaging: around it)
groups            rates and decay of the parameters
dataset           slices -> inputs                          (augmentation, warping, appearance: chance; studies)
label_noise       labels that count less                    (balance: slices drawn more often; mixing: with each other)
loading           datasets -> batches, in processes         (batches: their order; transfer: to the device)
networks          slices -> logits                          (lite0, timm_networks; pretrained, weights: files)
recurrent         slices of a study -> better logits        (attention: by a transformer; joint: three losses)
embeddings        what networks see in a slice, stored      (sources, finetuning: what runs build on; seen: whom)
learnt            a run -> what it knows of itself          (fingerprint: the same, read without torch)
loss, metric      the challenge's, in torch and in numpy    (scoring: beside the prior's; evaluation, d4: predicting)
checkpoint_files  a run that is not finished                (checkpoint_callback: writes; stopping: signals, budgets)
device            what computes, and the cores beside it    (precision, compiling, memory: how; processes: torchrun's)
watching          TensorBoard and W&B                       (ran, profiling: on what it ran, and where the time goes)
planning          what all of it takes                      (anchors: speeds that are published; timing: measured here)
"""
