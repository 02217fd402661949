package rabbitmq_test

func tapProcess() {}
