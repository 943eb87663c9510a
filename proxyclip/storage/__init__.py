"""Where do bytes lie? One interface over disks and object stores, with retries."""
