package rabbitmq

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// A separation keeps test messages from a queue's consumers:
//
//	X --(the queue's own bindings)--> sb.sep.N --has the header sb-test--> sb.sep.N.sink
//	                                      \
//	                                       alternate exchange, for all others
//	                                        \
//	                                         sb.sep.N.rest --> queue
//
// It lasts as long as one test. What a dead agent leaves of it changes nothing
// for other messages: they still reach the queue, also without the sink. The
// next Connect takes it away.
const separatePrefix = "sb.sep."

// Bounds of the sink: a test that nobody ends must not fill the broker.
const (
	sinkMessages = 1000
	sinkExpires  = 3_600_000 // ms without a consumer
)

// separationOf names the separation of a queue, the same for every run of the
// agent.
func (a *Adapter) separationOf(queue string) string {
	agent, _, _ := strings.Cut(a.prefix, ".")
	sum := sha256.Sum256([]byte(queue))
	return separatePrefix + agent + "." + hex.EncodeToString(sum[:8])
}

// separated is the exchange for test messages to a queue while they are kept
// from its consumers, or empty.
func (a *Adapter) separated(vhost, queue string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tests[vhost+"/"+queue] == testOn {
		return a.separationOf(queue)
	}
	return ""
}

// States of a queue's separation in this run of the agent.
type testState int

const (
	testChanging testState = iota + 1 // being built or taken away
	testOn
)

// claimTest sets a queue's state if it has none.
func (a *Adapter) claimTest(vhost, queue string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	key := vhost + "/" + queue
	if a.tests[key] != 0 {
		return false
	}
	if a.tests == nil {
		a.tests = map[string]testState{}
	}
	a.tests[key] = testChanging
	return true
}

func (a *Adapter) setTest(vhost, queue string, s testState) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if s == 0 {
		delete(a.tests, vhost+"/"+queue)
	} else {
		a.tests[vhost+"/"+queue] = s
	}
}

// Separate leads messages with the header of test messages into a sink until
// undo is called: those that come by the queue's bindings, and those that this
// agent sends into the queue. One test at a time.
func (a *Adapter) Separate(ctx context.Context, channel string) (string, func(context.Context) error, error) {
	vhost, queue := a.resolve(channel)
	wrap := func(err error) error { return fmt.Errorf("rabbitmq: keep test messages from %q: %w", channel, err) }
	if !a.claimTest(vhost, queue) {
		return "", nil, wrap(fmt.Errorf("%w: another test has its messages kept from this queue's consumers; wait until it has ended", controlbus.ErrConflict))
	}
	name := a.separationOf(queue)
	if err := a.buildSeparation(ctx, vhost, queue, name); err != nil {
		// Take away what there is of it, by a context that has not ended.
		undoErr := a.endSeparation(context.WithoutCancel(ctx), vhost, queue, name)
		a.setTest(vhost, queue, 0)
		if errors.Is(undoErr, controlbus.ErrUnsupported) || errors.Is(undoErr, controlbus.ErrNotFound) {
			undoErr = nil // it was never begun
		}
		return "", nil, wrap(errors.Join(err, undoErr))
	}
	a.setTest(vhost, queue, testOn)
	undo := func(ctx context.Context) error {
		a.setTest(vhost, queue, testChanging)
		defer a.setTest(vhost, queue, 0) // what is left is the next Connect's to remove
		if err := a.endSeparation(ctx, vhost, queue, name); err != nil {
			return fmt.Errorf("rabbitmq: end the separation of %q: %w", channel, err)
		}
		return nil
	}
	return a.channelName(vhost, name+".sink"), undo, nil
}

func (a *Adapter) buildSeparation(ctx context.Context, vhost, queue, name string) error {
	c, api, err := a.managed(ctx, vhost)
	if err != nil {
		return err
	}
	_, direct, err := a.reroutable(ctx, api, vhost, queue, name, name+".rest")
	if err != nil {
		return err
	}
	led, err := api.leading(ctx, vhost, name)
	if err != nil {
		return err
	}
	if len(direct) == 0 && len(led) == 0 {
		return fmt.Errorf("%w: %s", controlbus.ErrUnsupported, defaultOnly)
	}
	rest, sink := name+".rest", name+".sink"
	for _, st := range []struct {
		what string
		call func(*amqp.Channel) error
	}{
		{"declare exchange " + rest, func(ch *amqp.Channel) error {
			return ch.ExchangeDeclare(rest, amqp.ExchangeFanout, true, false, false, false, amqp.Table{argQueue: queue})
		}},
		{"bind " + queue, func(ch *amqp.Channel) error { return ch.QueueBind(queue, "", rest, false, nil) }},
		{"declare exchange " + name, func(ch *amqp.Channel) error {
			return ch.ExchangeDeclare(name, amqp.ExchangeHeaders, true, false, false, false, amqp.Table{"alternate-exchange": rest, argQueue: queue})
		}},
		{"declare queue " + sink, func(ch *amqp.Channel) error {
			_, err := ch.QueueDeclare(sink, true, false, false, false, amqp.Table{
				amqp.QueueTypeArg: amqp.QueueTypeClassic, amqp.QueueMaxLenArg: int64(sinkMessages), "x-expires": int64(sinkExpires),
			})
			return err
		}},
		{"bind " + sink, func(ch *amqp.Channel) error {
			return ch.QueueBind(sink, "", name, false, amqp.Table{"x-match": "any", controlbus.HeaderTest: nil})
		}},
	} {
		if err := a.step(ctx, c, st.what, st.call); err != nil {
			return err
		}
	}
	return a.lead(ctx, c, queue, name, direct)
}

// endSeparation takes away whatever there is of it.
func (a *Adapter) endSeparation(ctx context.Context, vhost, queue, name string) error {
	c, api, err := a.managed(ctx, vhost)
	if err != nil {
		return err
	}
	led, err := api.leading(ctx, vhost, name)
	if err != nil {
		return err
	}
	_, err = a.inspect(ctx, c, queue)
	if err != nil && !errors.Is(err, controlbus.ErrNotFound) {
		return err
	}
	if err := a.unlead(ctx, c, queue, name, led, err == nil); err != nil {
		return err
	}
	err = a.step(ctx, c, "delete "+name+".sink", func(ch *amqp.Channel) error {
		_, err := ch.QueueDelete(name+".sink", false, false, false) // test messages alone
		return err
	})
	if err != nil {
		return err
	}
	// Exchanges last: by them the next Connect finds what is left.
	if err := a.deleteExchange(ctx, c, name+".rest"); err != nil {
		return err
	}
	return a.deleteExchange(ctx, c, name)
}

// leftSeparations are those of this agent that no test of this run has, with
// their queues.
func (a *Adapter) leftSeparations(ctx context.Context, api *management, vhost string) (map[string]string, error) {
	agent, _, _ := strings.Cut(a.prefix, ".")
	prefix := separatePrefix + agent + "."
	found, err := api.between(ctx, vhost, prefix)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	a.mu.Lock()
	defer a.mu.Unlock()
	for exchange, queue := range found {
		name := strings.TrimSuffix(exchange, ".rest")
		if a.tests[vhost+"/"+queue] == 0 && name == a.separationOf(queue) {
			out[name] = queue
		}
	}
	return out, nil
}

// sweepSeparations ends what a dead run of the agent left.
func (a *Adapter) sweepSeparations(ctx context.Context, api *management) error {
	var errs []error
	for _, vhost := range a.vhosts {
		left, err := a.leftSeparations(ctx, api, vhost)
		errs = append(errs, err)
		for name, queue := range left {
			if !a.claimTest(vhost, queue) {
				continue
			}
			err := a.endSeparation(ctx, vhost, queue, name)
			a.setTest(vhost, queue, 0)
			if err != nil {
				errs = append(errs, fmt.Errorf("queue %q: %w", queue, err))
			}
		}
	}
	return errors.Join(errs...)
}
