"""Is the file on the phone the same function as the module?"""
