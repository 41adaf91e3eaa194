"""TensorBoard's events of a run; imported only where tensorboard is installed."""

from fastai.callback.tensorboard import TensorBoardCallback


class Events(TensorBoardCallback):
    """fastai's callback without the hyperparameters that are no numbers, on which it fails with torch's Adam."""

    run_valid = False  # its curve of the training loss is not for the batches of the validation

    def after_batch(self) -> None:
        self.writer.add_scalar("train_loss", self.smooth_loss, self.train_iter)
        self.writer.add_scalar("learning_rate", self.opt.hypers[-1]["lr"], self.train_iter)
