package nats_test

func tapProcess() {}
