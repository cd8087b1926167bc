"""What the files of a weights folder are called, here and on the Hub; weights.py says what they hold."""

MODEL_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
PREPROCESSING_FILE = "preprocessing.safetensors"
CODE_FILE = "network.py"
