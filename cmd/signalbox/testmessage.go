package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/signalbox-dev/signalbox/controlbus"
)

var testCommand = command{name: "test", summary: "send a test message through a channel", run: func(ctx context.Context, args []string) error { return newTerminal().test(ctx, args) }}

// pairFlag is a flag k=v that may be given again.
type pairFlag map[string]string

func (p pairFlag) String() string { return "" }

func (p pairFlag) Set(s string) error {
	k, v, ok := strings.Cut(s, "=")
	if !ok || k == "" {
		return errors.New("want NAME=VALUE")
	}
	p[k] = v
	return nil
}

// maxTestBody leaves room for the rest of a command's arguments.
const maxTestBody = 48 << 10

func (t *terminal) test(ctx context.Context, args []string) error {
	v := t.acting("test", "BROKER/CHANNEL --body TEXT | --body-file FILE | - [flags]", `
Sends one message, marked with the header `+controlbus.HeaderTest+` and a value of its own, by which its way can be followed. A hyphen reads the body from
standard input. It goes to the channel's real consumers, unless --separate and the broker can keep it from them.

  signalbox test rabbit-eu1/orders.placed --body '{"orderId":"TEST-1"}' --content-type application/json --header x-tenant=test`)
	f := addOrder(t, v)
	body := v.String("body", "", "the `text` to send")
	file := v.String("body-file", "", "send the content of this `file`")
	kind := v.String("content-type", "", "what the body `is`, such as application/json")
	key := v.String("key", "", "routing `key` or subject, where the channel has more than one")
	run := v.String("run", "", "`value` of the mark; made up without it")
	separate := v.Bool("separate", false, "keep it from business consumers, where the broker can")
	broker := v.String("broker", "", "the channel is of this `broker`")
	headers := pairFlag{}
	v.Var(headers, "header", "a header `NAME=VALUE`; may be given again")
	rest, err := v.parse(args)
	if err != nil {
		return err
	}
	stdin := len(rest) == 2 && rest[1] == "-"
	if stdin {
		rest = rest[:1]
	}
	name, err := one(rest, "channel")
	if err != nil {
		return err
	}
	given := 0
	for _, is := range []bool{v.given("body"), v.given("body-file"), stdin} {
		if is {
			given++
		}
	}
	if given != 1 {
		return fmt.Errorf("%w: want one of --body, --body-file and - for standard input", errUsage)
	}
	if stdin && !*f.yes && !*f.dry && t.asks {
		return fmt.Errorf("%w: with the body on standard input there is nobody to ask: give --yes or --dry-run", errUsage)
	}
	text := *body
	if !v.given("body") {
		in := t.in
		if !stdin {
			r, err := os.Open(*file)
			if err != nil {
				return fmt.Errorf("%w: %w", errUsage, err)
			}
			defer r.Close()
			in = r
		}
		raw, err := io.ReadAll(io.LimitReader(in, maxTestBody+1))
		if err != nil {
			return fmt.Errorf("read the body: %w", err)
		}
		text = string(raw)
	}
	switch {
	case len(text) > maxTestBody:
		return fmt.Errorf("%w: a body of more than %d bytes: a test message has to be smaller", errUsage, maxTestBody)
	case !utf8.ValidString(text):
		return fmt.Errorf("%w: the body is not UTF-8: a test message has to be text", errUsage)
	}
	a := controlbus.TestArgs{Run: *run, ContentType: *kind, Body: text, Headers: headers, Key: *key, Separate: *separate}
	return t.act(ctx, f, controlbus.CommandTest, name, *broker, "", a)
}
