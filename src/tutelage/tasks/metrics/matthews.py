"""Matthews' correlation coefficient of classes."""

from torch import Tensor
from torchmetrics.classification import MulticlassMatthewsCorrCoef


class MatthewsCorrelation(MulticlassMatthewsCorrCoef):
    """Correlation of said and true classes, 0 where it is not defined.

    With the examples n, those that are right r, and of each class those that are said, s_c, and true, t_c:
    (n·r − Σ s_c t_c) / √((n² − Σ s_c²)(n² − Σ t_c²)). It is 0/0 where one class is said of all examples, or true of
    all: then 0, as in scikit-learn and so in GLUE's published figures. torchmetrics has another value there, which
    depends on the number of examples.

    Gorodkin, "Comparing two K-category assignments by a K-category correlation coefficient", 2004.

    Args:
        num_classes: number of classes.
        **kwargs: further arguments of torchmetrics' ``MulticlassMatthewsCorrCoef``.
    """

    def compute(self) -> Tensor:
        """Returns the coefficient of all examples so far, a float32 from −1 to 1."""
        table = self.confmat.double()
        true, said, count = table.sum(1), table.sum(0), table.sum()
        spread = (count**2 - said @ said) * (count**2 - true @ true)
        return ((count * table.trace() - said @ true) / spread.clamp(min=1).sqrt()).float()
