package fault

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
	"github.com/signalbox-dev/signalbox/test/program"
)

// console is a signalbox serve that is killed and started on the same ports.
type console struct {
	*victim
	url, sql string
}

func newConsole(t *testing.T) *console {
	t.Helper()
	dir := t.TempDir()
	listen, sql := freePort(t), freePort(t)
	text, err := json.Marshal(map[string]any{
		"data_dir": filepath.Join(dir, "data"), "listen": listen, "listen_grpc": "",
		"storage": map[string]any{"engine": map[string]any{"tcp_listen": sql}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "console.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return &console{
		victim: &victim{t: t, name: program.Console, args: []string{"serve", "-config", path}, alone: true},
		url:    "http://" + listen, sql: "http://" + sql,
	}
}

// freePort is an address that nobody listens on.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// killEngine kills the console's engine child, and says whether there was one.
func (c *console) killEngine() bool {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", c.pid()))
	if err != nil {
		return false
	}
	for _, task := range tasks {
		children, err := os.ReadFile(task)
		if err != nil {
			continue
		}
		for _, child := range strings.Fields(string(children)) {
			if pid, err := strconv.Atoi(child); err == nil && syscall.Kill(pid, syscall.SIGKILL) == nil {
				return true
			}
		}
	}
	return false
}

// counted is what the store holds of the test's messages.
type counted struct{ rows, uids, first, last int64 }

// count asks the engine's read-only listener.
func (c *console) count(ctx context.Context) (n counted, err error) {
	const query = `SELECT count(), uniqExact(uid), min(position), max(position) FROM signalbox.messages WHERE env = '` + agentEnv + `' FORMAT TSV`
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.sql+"/?query="+url.QueryEscape(query), nil)
	if err != nil {
		return n, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return n, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return n, err
	}
	if resp.StatusCode != http.StatusOK {
		return n, fmt.Errorf("%s: %s", resp.Status, text)
	}
	_, err = fmt.Sscan(string(text), &n.rows, &n.uids, &n.first, &n.last)
	return n, err
}

// TestFaultChain taps a stream through agent, console and store while each of
// the three processes is killed with kill -9 at seeded moments. Everything that
// was sent is stored, once.
func TestFaultChain(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs and kills them")
	}
	enginetest.Require(t)
	src := newSource(t)
	c := newConsole(t)
	c.start()
	agent := &victim{t: t, name: program.Agent, args: []string{"-config", agentConfig(t, src.url, c.url)}}
	agent.start()

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	awaitTap(ctx, t, src, func() bool { n, err := c.count(ctx); return err == nil && n.rows > 0 }, agent)

	n := size()
	lasts := max(20*time.Second, time.Duration(n)*250*time.Microsecond) // at most 4,000 a second
	troubled, calm := context.WithCancel(ctx)
	engineKills := 0
	var faults sync.WaitGroup
	faults.Go(func() {
		chaos(troubled, 1500*time.Millisecond,
			func(rng *rand.Rand) {
				agent.kill()
				_ = sleep(troubled, time.Duration(rng.Int64N(int64(500*time.Millisecond))))
				agent.start()
			},
			func(*rand.Rand) {
				if c.killEngine() {
					engineKills++
				}
			},
			func(rng *rand.Rand) {
				c.kill()
				_ = sleep(troubled, time.Duration(rng.Int64N(int64(500*time.Millisecond))))
				c.start()
			})
	})
	err := src.publish(ctx, n, lasts)
	calm()
	faults.Wait()
	if err != nil {
		t.Fatal(err)
	}
	last, err := src.last(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("published %d messages; killed: agent %d, console %d, engine %d times", n, agent.kills, c.kills, engineKills)
	if agent.kills == 0 || c.kills == 0 || engineKills == 0 {
		t.Error("somebody was never killed: the run proves nothing")
	}

	calmed := time.Now()
	wait, recovered := context.WithTimeout(ctx, 3*time.Minute)
	defer recovered()
	var got counted
	for {
		if got, err = c.count(wait); err == nil && got.uids >= int64(last)-got.first+1 {
			break
		}
		if sleep(wait, 200*time.Millisecond) != nil {
			t.Fatalf("stored %d distinct messages from position %d on, want %d up to %d (%v)\n%s", got.uids, got.first, int64(last)-got.first+1, last, err, c.proc.Output())
		}
	}
	t.Logf("everything stored %v after the last fault: %d rows, %d distinct, positions %d to %d", time.Since(calmed).Round(time.Millisecond), got.rows, got.uids, got.first, got.last)
	if got.last != int64(last) || got.uids != int64(last)-got.first+1 {
		t.Errorf("stored %d distinct messages, positions %d to %d; want each one up to %d", got.uids, got.first, got.last, last)
	}
	if got.rows != got.uids {
		t.Errorf("%d messages are stored twice", got.rows-got.uids)
	}
}
