"""How do parameters step where Jacobians are known? All other optimisers are optax's."""

from foretrace.optim._kalman import KalmanState, kalman

__all__ = ["KalmanState", "kalman"]
