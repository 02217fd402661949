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
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/storage/engine/enginetest"
	"github.com/signalbox-dev/signalbox/test/program"
)

// site is a console's addresses, which outlive its processes.
type site struct {
	dir, config     string
	http, grpc, sql string
}

// newSite writes a console's configuration. change may alter it.
func newSite(t *testing.T, change func(map[string]any)) *site {
	t.Helper()
	enginetest.Require(t)
	s := &site{dir: t.TempDir(), http: freeAddr(t), grpc: freeAddr(t), sql: freeAddr(t)}
	cfg := map[string]any{
		"data_dir": filepath.Join(s.dir, "data"), "listen": s.http, "listen_grpc": s.grpc, "grace": "10s", "access": map[string]any{"mode": "open"},
		"storage": map[string]any{"engine": map[string]any{"tcp_listen": s.sql}},
	}
	if change != nil {
		change(cfg)
	}
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.config = filepath.Join(s.dir, "console.yaml")
	if err := os.WriteFile(s.config, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *site) url() string    { return "http://" + s.http }
func (s *site) args() []string { return []string{"serve", "-config", s.config} }

// freeAddr is an address nobody listens on. A restarted program needs the same
// one again, so it cannot be left to the kernel each time.
func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// ready waits until the console's pages answer.
func (s *site) ready(ctx context.Context, t *testing.T, p *program.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if code, _, err := fetch(ctx, s.url()+"/messages"); err == nil && code == http.StatusOK {
			return
		}
		select {
		case <-p.Done():
			t.Fatalf("the console ended:\n%s", p.Output())
		default:
		}
		if sleep(ctx, 20*time.Millisecond) != nil {
			t.Fatalf("the console does not answer:\n%s", p.Output())
		}
	}
}

// client has no limit of its own: each request brings its context.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: 2 * time.Minute}}

func fetch(ctx context.Context, address string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return 0, "", err
	}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), err
}

// query asks the engine's read-only listener, beside the console.
func (s *site) query(ctx context.Context, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	code, text, err := fetch(ctx, "http://"+s.sql+"/?"+url.Values{"query": {sql}}.Encode())
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("status %d: %s", code, text)
	}
	return strings.TrimSpace(text), err
}

// stored is how many of the stream's messages are in the store: rows, and
// distinct ones among them.
func (s *site) stored(ctx context.Context) (rows, distinct int, err error) {
	text, err := s.query(ctx, "SELECT count(), uniqExact(uid) FROM signalbox.messages WHERE env = '"+agentEnv+"'")
	if err != nil {
		return 0, 0, err
	}
	_, err = fmt.Sscan(text, &rows, &distinct)
	return rows, distinct, err
}

var messageLink = regexp.MustCompile(`href="/messages/([0-9a-f]{32})`)

// search asks the page of messages, as a reader does, and returns the uids of
// its rows.
func (s *site) search(ctx context.Context, filter string) ([]string, error) {
	code, text, err := fetch(ctx, s.url()+"/messages?"+url.Values{"q": {filter}, "range": {"24h"}}.Encode())
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("search %s: status %d", filter, code)
	}
	var uids []string
	for _, m := range messageLink.FindAllStringSubmatch(text, -1) {
		uids = append(uids, m[1])
	}
	return uids, nil
}

// engineOf is the process id of a console's engine, 0 while there is none.
func engineOf(console int) int {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", console))
	if err != nil {
		return 0
	}
	for _, file := range tasks {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				return pid
			}
		}
	}
	return 0
}

// TestFaultConsole kills the console, its engine and the agent while messages
// are tapped: everything that was sent is stored, and found once.
func TestFaultConsole(t *testing.T) {
	if testing.Short() {
		t.Skip("starts programs and kills them")
	}
	site := newSite(t, nil)
	console := &victim{t: t, name: program.Console, args: site.args()}
	console.start()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute)
	defer cancel()
	site.ready(ctx, t, console.proc)

	src := newSource(t)
	agent := &victim{t: t, name: program.Agent, args: []string{"-config", agentConfig(t, src.url, site.url())}}
	agent.start()
	awaitTap(ctx, t, src, func() bool { rows, _, err := site.stored(ctx); return err == nil && rows > 0 }, agent)

	n, gap := size(), 1200*time.Millisecond
	lasts := time.Duration(n) * 400 * time.Microsecond // 2,500 a second, whatever the size
	if n >= 1_000_000 {
		gap = 5 * time.Second // time to get on between two faults
	}
	engineKills, alone := 0, 0
	troubled, calm := context.WithCancel(ctx)
	defer calm()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		chaos(troubled, gap,
			func(*rand.Rand) { // the engine alone: the console starts it again
				if pid := engineOf(console.pid()); pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
					engineKills++
				}
			},
			func(rng *rand.Rand) {
				agent.kill()
				_ = sleep(troubled, time.Duration(rng.Int64N(int64(500*time.Millisecond))))
				agent.start()
			},
			func(*rand.Rand) { // the console alone: its engine has to notice
				console.alone = true
				alone++
				console.kill()
				console.start()
			},
			func(*rand.Rand) {
				console.alone = false
				console.kill()
				console.start()
			},
			func(*rand.Rand) { // all of it at once, as a power cut would
				console.alone = false
				agent.kill()
				console.kill()
				console.start()
				agent.start()
			})
	}()
	begin := time.Now()
	err := src.publish(ctx, n, lasts)
	published := time.Since(begin)
	calm()
	<-ended
	if err != nil {
		t.Fatal(err)
	}
	last, err := src.last(ctx)
	if err != nil {
		t.Fatal(err)
	}
	want := int(last) // with the ticks that saw the tap come up

	// From here on nobody helps: it recovers by itself or not at all.
	calmed := time.Now()
	first, rows, distinct := 0, 0, 0
	progress := time.Now()
	for seen := -1; ; {
		text, queryErr := site.query(ctx, "SELECT min(position), count(), uniqExact(uid) FROM signalbox.messages WHERE env = '"+agentEnv+"'")
		if queryErr == nil {
			_, queryErr = fmt.Sscan(text, &first, &rows, &distinct)
		}
		if queryErr == nil && first > 0 && distinct == want-first+1 {
			break
		}
		if distinct != seen {
			seen, progress = distinct, time.Now()
		}
		if time.Since(progress) > time.Minute || sleep(ctx, 200*time.Millisecond) != nil {
			t.Fatalf("stored %d of %d messages and nothing more for a minute (%v)\nagent:\n%s\nconsole:\n%s",
				distinct, want-first+1, queryErr, agent.proc.Output(), console.proc.Output())
		}
	}
	caughtUp := time.Since(calmed)
	// A moment more: what comes late must not add anything.
	if err := sleep(ctx, 3*time.Second); err != nil {
		t.Fatal(err)
	}
	if rows, distinct, err = site.stored(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d messages in %v; kills: engine %d, agent %d, console %d (%d of them without its engine); caught up %v after the last; rows at rest %d, distinct %d, duplicates at rest %d",
		want-first+1, published.Round(time.Millisecond), engineKills, agent.kills, console.kills, alone, caughtUp.Round(time.Millisecond), rows, distinct, rows-distinct)
	if distinct != want-first+1 || want-first+1 < n {
		t.Errorf("distinct uids: got %d, want %d, at least %d", distinct, want-first+1, n)
	}
	if engineKills < 2 || agent.kills < 3 || console.kills < 3 {
		t.Errorf("the test was too kind: engine %d, agent %d, console %d kills", engineKills, agent.kills, console.kills)
	}
	foundOnce(ctx, t, site, n)
}

// foundOnce looks at what a reader is shown: the rows that are in the store
// more than once, if any, and conversations spread over the run.
func foundOnce(ctx context.Context, t *testing.T, site *site, n int) {
	t.Helper()
	twice, err := site.query(ctx, "SELECT lower(hex(uid)) FROM signalbox.messages WHERE env = '"+agentEnv+"' GROUP BY uid HAVING count() > 1 LIMIT 200")
	if err != nil {
		t.Fatal(err)
	}
	for _, uid := range strings.Fields(twice) {
		found, err := site.search(ctx, "uid:"+uid)
		if err != nil {
			t.Fatal(err)
		}
		if len(found) != 1 {
			t.Errorf("uid %s is stored more than once and shown %d times, want once", uid, len(found))
		}
	}
	const samples = 100
	for i := range samples {
		conversation := (n / 5) * i / samples
		found, err := site.search(ctx, fmt.Sprintf("correlation:conversation-%d", conversation))
		if err != nil {
			t.Fatal(err)
		}
		distinct := map[string]bool{}
		for _, uid := range found {
			distinct[uid] = true
		}
		if len(found) != 5 || len(distinct) != 5 {
			t.Errorf("conversation-%d: shown %d rows, %d distinct, want 5", conversation, len(found), len(distinct))
		}
	}
}

// await repeats f until it succeeds, and fails the test with its last error
// after limit.
func await(t *testing.T, limit time.Duration, f func(context.Context) error) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	begin := time.Now()
	for {
		err := f(ctx)
		if err == nil {
			return time.Since(begin)
		}
		if sleep(ctx, 50*time.Millisecond) != nil {
			t.Fatalf("after %v: %v", limit, err)
		}
	}
}
