package agents_test

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// TestMain is also the agent program that the crash tests kill.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	goleak.VerifyTestMain(m)
}
