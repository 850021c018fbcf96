"""A module that no loader may import: a clone would have its locks, but not its thread."""

import threading
import time

threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
