"""Ten Flower clients learn handwritten digits; some of them attack, and FedGuard is in front of FedAvg."""
