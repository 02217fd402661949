package main

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// BenchmarkProgram is the built agent tapping a core NATS subject with 20,000
// messages of 500 bytes a second, paths masked in each; it reports what the
// process keeps in memory.
func BenchmarkProgram(b *testing.B) {
	dir := b.TempDir()
	bin := filepath.Join(dir, "signalbox-agent")
	if out, err := exec.CommandContext(b.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	broker, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true})
	if err != nil {
		b.Fatal(err)
	}
	broker.Start()
	defer func() { broker.Shutdown(); broker.WaitForShutdown() }()
	if !broker.ReadyForConnections(10 * time.Second) {
		b.Fatal("NATS does not start")
	}
	nc, err := nats.Connect(broker.ClientURL())
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	rec := &receiver{last: map[string]uint64{}, seen: map[controlbus.ID]int{}}
	srv := httptest.NewServer(rec)
	defer srv.Close()
	file := filepath.Join(dir, "agent.yaml")
	config := fmt.Sprintf("agent: {id: a1, data_dir: %q}\nconsole: {url: %q}\nredaction: {paths: [{path: $.card.pan}, {path: $..password}]}\nbrokers:\n- name: n1\n  type: nats\n  options: {urls: [%q], subjects: [load]}\n  taps: [{channel: load}]\n",
		filepath.Join(dir, "data"), srv.URL, broker.ClientURL())
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		b.Fatal(err)
	}
	body := []byte(`{"id":"order-4711","card":{"pan":"4111111111111111"},"note":"` + strings.Repeat("x", 430) + `"}`)
	for b.Loop() {
		cmd := exec.Command(bin, "--config", file)
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		for began := time.Now(); rec.count() == 0; {
			if err := nc.Publish("load", body); err != nil || time.Since(began) > 20*time.Second {
				b.Fatal("the agent taps nothing: ", err)
			}
			time.Sleep(5 * time.Millisecond)
		}
		const rate, seconds = 20_000, 10
		began := time.Now()
		before := rec.count()
		for n := 0; n < rate*seconds; n++ {
			if n%100 == 0 {
				time.Sleep(time.Until(began.Add(time.Duration(n) * time.Second / rate)))
			}
			if err := nc.Publish("load", body); err != nil {
				b.Fatal(err)
			}
		}
		_ = nc.Flush()
		took := time.Since(began)
		time.Sleep(500 * time.Millisecond)
		arrived := rec.count() - before
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid))
		if err != nil {
			b.Skip("no /proc here")
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		b.ReportMetric(float64(arrived)/took.Seconds(), "msg/s")
		b.ReportMetric(float64(rate*seconds-arrived), "missing")
		b.ReportMetric(mebibytes(status, "VmHWM"), "peak-MiB")
		b.ReportMetric(mebibytes(status, "VmRSS"), "rss-MiB")
		b.ReportMetric((cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()).Seconds()/took.Seconds(), "cores")
	}
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.seen)
}

func mebibytes(status []byte, key string) float64 {
	for line := range bytes.Lines(status) {
		if rest, ok := strings.CutPrefix(string(line), key+":"); ok {
			n, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return n / 1024
		}
	}
	return 0
}
