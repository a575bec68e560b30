"""What training keeps and recomputes, and an estimate of both."""
