package agenttest_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/signalbox-dev/signalbox/agents"
	"github.com/signalbox-dev/signalbox/agents/agenttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The suite is only worth something if a right adapter passes it.
func TestFakePassesTheSuite(t *testing.T) {
	t.Parallel()
	for _, resumable := range []bool{false, true} {
		t.Run(fmt.Sprintf("resumable=%v", resumable), func(t *testing.T) {
			t.Parallel()
			var n atomic.Int64
			f := agenttest.NewFake()
			f.Resumable = resumable
			agenttest.TestAdapter(t, agenttest.Broker{
				New: func(*testing.T) agents.Adapter { return f },
				Channel: func(*testing.T) string {
					name := fmt.Sprintf("channel-%d", n.Add(1))
					f.Add(name)
					return name
				},
				Publish: func(_ *testing.T, channel string, msgs ...agenttest.Message) { f.Publish(channel, msgs...) },
				Artefacts: func(*testing.T) []string {
					return make([]string, f.Taps())
				},
				Cut:  func(*testing.T) { f.Cut() },
				Heal: func(*testing.T) { f.Heal() },
			})
		})
	}
}
