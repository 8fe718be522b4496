"""From files to tokens: documents, records, prompts, pairs, tokenizers, the planted corpus."""
