"""Models as other programs write and read them: folders of Hugging Face's transformers."""
