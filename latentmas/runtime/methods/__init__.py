"""Methods of `System` by what they are for, and its text form."""
