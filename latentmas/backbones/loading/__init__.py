"""Reading a declaration: files, configuration, class, arguments and tokenizer of a model."""
