"""What can be seen of a run: events, taps on edges, the record for a report, streamed text."""
