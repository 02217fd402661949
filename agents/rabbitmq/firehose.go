package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// errLease ends a firehose tap. It is ErrUnsupported so that nobody tries the
// same again at once: a person has to ask for another lease.
var errLease = fmt.Errorf("%w: the firehose's lease is over; ask for the tap again", controlbus.ErrUnsupported)

const markPrefix = "sb.firehose."

// firehose switches the tracing of virtual hosts on for the first tap that
// needs it and off after the last. Tracing outlives the agent, so a mark on the
// broker, an exchange that nothing is bound to, says who switched it on; the
// next agent to start finds the mark of a dead one and switches tracing off.
// Tracing that was on before is somebody else's and stays on.
type firehose struct {
	a  *Adapter
	mu sync.Mutex // held across calls: taps starting and ending take turns
	on map[string]int
	// ours says that we switched it on.
	ours map[string]bool
}

type firehoseMark struct{ vhost, name string }

func (f *firehose) mark() string { return markPrefix + strings.TrimSuffix(f.a.prefix, ".") }

// hold switches tracing on and returns what gives it back.
func (f *firehose) hold(ctx context.Context, api *management, c *conn, vhost string) (release func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.on == nil {
		f.on, f.ours = map[string]int{}, map[string]bool{}
	}
	if f.on[vhost] == 0 {
		before, err := api.tracing(ctx, vhost)
		if err != nil {
			return nil, fmt.Errorf("read the tracing flag: %w", err)
		}
		others, err := f.others(ctx, api, vhost)
		if err != nil {
			return nil, err
		}
		if !before || others {
			// The mark comes first: a crash between the two leaves a mark of
			// nothing, not a flag of nobody.
			if err := f.place(ctx, c); err != nil {
				return nil, fmt.Errorf("mark the firehose: %w", err)
			}
			if err := api.setTracing(ctx, vhost, true); err != nil {
				return nil, fmt.Errorf("switch tracing on: %w", err)
			}
			f.ours[vhost] = true
		}
	}
	f.on[vhost]++
	return func() { f.release(api, vhost) }, nil
}

func (f *firehose) place(ctx context.Context, c *conn) error {
	ch, err := c.channel(ctx, f.a.cfg.Timeout)
	if err != nil {
		return err
	}
	err = c.do(ctx, f.a.cfg.Timeout, func() error {
		return ch.ExchangeDeclare(f.mark(), "fanout", true, false, true, false, amqp.Table{})
	})
	if !ch.IsClosed() {
		_ = c.do(ctx, f.a.cfg.Timeout, ch.Close)
	}
	return err
}

func (f *firehose) release(api *management, vhost string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.on[vhost]--; f.on[vhost] > 0 || !f.ours[vhost] {
		return
	}
	delete(f.ours, vhost)
	// Not the tap's context: that has ended.
	if err := f.off(context.Background(), api, firehoseMark{vhost, f.mark()}); err != nil {
		f.a.log.Error("switching tracing off; the next start tries again", "vhost", vhost, "error", err)
	}
}

// others says that a mark other than ours, and than those excepted, is on the
// virtual host: another agent needs the flag, or a dead one's is still to be swept.
func (f *firehose) others(ctx context.Context, api *management, vhost string, except ...string) (bool, error) {
	marks, err := f.marks(ctx, api)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(marks, func(m firehoseMark) bool {
		return m.vhost == vhost && m.name != f.mark() && !slices.Contains(except, m.name)
	}), nil
}

// off switches tracing off, unless another agent needs it, and then removes the
// mark.
func (f *firehose) off(ctx context.Context, api *management, m firehoseMark) error {
	others, err := f.others(ctx, api, m.vhost, m.name)
	if err != nil {
		return err
	}
	if !others {
		if err := api.setTracing(ctx, m.vhost, false); err != nil {
			return err
		}
	}
	err = api.do(ctx, http.MethodDelete, "/api/exchanges/"+url.PathEscape(m.vhost)+"/"+url.PathEscape(m.name), nil, nil)
	if errors.Is(err, controlbus.ErrNotFound) {
		return nil
	}
	return err
}

// marks lists the firehose marks of all agents.
func (f *firehose) marks(ctx context.Context, api *management) ([]firehoseMark, error) {
	var out []firehoseMark
	for _, vhost := range f.a.vhosts {
		var answer struct {
			Items []struct {
				Name string `json:"name"`
			} `json:"items"`
		}
		q := url.Values{"page": {"1"}, "page_size": {"500"}, "name": {markPrefix}, "use_regex": {"false"}, "columns": {"name"}}
		if err := api.do(ctx, http.MethodGet, "/api/exchanges/"+url.PathEscape(vhost)+"?"+q.Encode(), nil, &answer); err != nil {
			return nil, fmt.Errorf("rabbitmq: list exchanges of %q: %w", vhost, err)
		}
		for _, x := range answer.Items {
			if strings.HasPrefix(x.Name, markPrefix) {
				out = append(out, firehoseMark{vhost, x.Name})
			}
		}
	}
	return out, nil
}

// sweep switches off what dead incarnations left on. An incarnation lives as
// long as one of its firehose queues does.
func (f *firehose) sweep(ctx context.Context) error {
	f.a.mu.Lock()
	api := f.a.api
	f.a.mu.Unlock()
	if api == nil {
		return nil
	}
	marks, err := f.marks(ctx, api)
	if err != nil || len(marks) == 0 {
		return err
	}
	var errs []error
	for _, vhost := range f.a.vhosts {
		alive := map[string]bool{}
		err := api.queues(ctx, vhost, nameColumns, f.a.cfg.PageSize, false, func(q queueInfo) {
			if rest, ok := strings.CutPrefix(q.Name, "sb.fire."); ok {
				if i := strings.LastIndexByte(rest, '.'); i > 0 {
					alive[markPrefix+rest[:i]] = true
				}
			}
		})
		if err != nil {
			return err
		}
		for _, m := range marks {
			if m.vhost != vhost || alive[m.name] || m.name == f.mark() {
				continue
			}
			f.a.log.InfoContext(ctx, "removing the firehose that a dead agent left on", "vhost", vhost, "mark", m.name)
			errs = append(errs, f.off(ctx, api, m))
		}
	}
	return errors.Join(errs...)
}
