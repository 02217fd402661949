package rabbitmq

// separatePrefix is of what keeps test messages from a queue's consumers.
const separatePrefix = "sb.sep."
