"""What the system tests share. processes: who we started; context: what a test is given; daemon: tarnd and tarn;
load: a client that remembers what it was answered; images: files; crash: the kill-and-check cycle; power and
volatile_disk: the same with a power cut."""
