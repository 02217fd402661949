package detour

import (
	"os"
	"testing"

	"github.com/signalbox-dev/signalbox/test/broker"
)

// TestMain is also the agent that the tests kill.
func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	broker.Main(m)
}
