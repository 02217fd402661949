package broker

// StartNATSForChild is NATS without a test around it.
func StartNATSForChild() (*Server, error) { return startNATS("") }
