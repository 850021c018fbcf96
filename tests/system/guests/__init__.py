"""Programs that tests run as guests. In the guest this folder is /program and its modules are top-level ones."""
