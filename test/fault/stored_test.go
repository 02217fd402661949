package fault

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/controlbus/telemetry"
)

// collect sends the messages from to until to of a channel to the console, as a
// tap does.
func (b *bus) collect(channel, prefix string, from, to int) {
	b.t.Helper()
	e := telemetry.NewEncoder(telemetry.Origin{AgentID: "tap", Env: agentEnv})
	for i := from; i < to; i++ {
		text := []byte(body(prefix, i))
		e.Append(&controlbus.MessageEvent{
			UID: uidOf(prefix + strconv.Itoa(i)), Time: time.Now().UnixNano(), System: "rabbitmq", Broker: busBroker, Destination: channel,
			Op: controlbus.OpTap, MessageID: prefix + "-" + strconv.Itoa(i), ContentType: "application/json", Body: text, BodySize: int64(len(text)),
		})
	}
	req, err := http.NewRequestWithContext(b.t.Context(), http.MethodPost, b.url()+"/v1/logs", bytes.NewReader(e.Request(nil)))
	if err != nil {
		b.t.Fatal(err)
	}
	req.Header.Set("Content-Type", protobuf)
	res, err := client.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	if text, err := io.ReadAll(res.Body); err != nil || res.StatusCode != http.StatusOK {
		b.t.Fatalf("send messages to the store: %s %s %v", res.Status, text, err)
	}
}

// stores waits until n messages of a channel are in the store.
func (b *bus) stores(channel string, n int) {
	b.t.Helper()
	await(b.t, time.Minute, func(ctx context.Context) error {
		got, err := b.query(ctx, "SELECT count() FROM signalbox.messages WHERE destination = '"+channel+"'")
		if err == nil && got != strconv.Itoa(n) {
			err = fmt.Errorf("%s messages of %s are stored, want %d", got, channel, n)
		}
		return err
	})
}
