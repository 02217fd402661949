package ui_test

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/signalbox-dev/signalbox/controlbus"
	"github.com/signalbox-dev/signalbox/ui/api/apitest"
)

func ptr[T any](v T) *T { return &v }

// TestAGeneratedClientWorks walks a newcomer's way with a client that was made
// from the document alone: what is there, what failed, what is in it, how it
// came to that, and a tap on where it happened.
func TestAGeneratedClientWorks(t *testing.T) {
	t.Parallel()
	s, r := filled(now)
	srv := httptest.NewServer(newUI(t, s, r, noLive))
	defer srv.Close()
	c, err := apitest.NewClientWithResponses(srv.URL + v1)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()

	version, err := c.GetVersionWithResponse(ctx)
	if err != nil || version.JSON200 == nil || version.JSON200.Version != "test" || !version.JSON200.Now.Equal(now) {
		t.Fatalf("version: %v %+v", err, version)
	}
	envs, err := c.ListEnvironmentsWithResponse(ctx, nil)
	if err != nil || envs.JSON200 == nil || len(envs.JSON200.Environments) != 2 {
		t.Fatalf("environments: %v %s", err, envs.Body)
	}
	chans, err := c.ListChannelsWithResponse(ctx, &apitest.ListChannelsParams{Env: ptr("production"), Name: ptr("payments.*")})
	if err != nil || chans.JSON200 == nil || len(chans.JSON200.Channels) != 2 || *chans.JSON200.Channels[0].Ready != 18402 {
		t.Fatalf("channels: %v %s", err, chans.Body)
	}

	p := apitest.SearchMessagesParams{Q: ptr("failed:true channel:payments.*"), Limit: ptr(10), Snippets: ptr(true), From: ptr(now.Add(-time.Hour)), To: ptr(now)}
	var first apitest.Message
	found, pages := 0, 0
	for ; ; pages++ {
		page, err := c.SearchMessagesWithResponse(ctx, &p)
		if err != nil || page.JSON200 == nil {
			t.Fatalf("search: %v %s", err, page.Body)
		}
		if found == 0 {
			first = page.JSON200.Messages[0]
		}
		found += len(page.JSON200.Messages)
		if page.JSON200.Next == nil {
			break
		}
		p.Cursor = page.JSON200.Next
	}
	if found != 34 || pages != 3 || first.Outcome != apitest.MessageOutcomeDeadLettered || first.Snippet == nil {
		t.Fatalf("search: found %d on %d further pages, first %+v", found, pages, first)
	}

	one, err := c.GetMessageWithResponse(ctx, first.Uid, &apitest.GetMessageParams{At: &first.Time})
	if err != nil || one.JSON200 == nil || one.JSON200.Body == nil || !strings.Contains(*one.JSON200.Body.Content, "9007199254740993127") {
		t.Fatalf("message: %v %s", err, one.Body)
	}
	story, err := c.GetMessageHistoryWithResponse(ctx, first.Uid, nil)
	if err != nil || story.JSON200 == nil || len(story.JSON200.Events) != 6 {
		t.Fatalf("history: %v %s", err, story.Body)
	}
	spans, logs := 0, 0
	for _, e := range story.JSON200.Events {
		if e.Span != nil {
			spans++
		}
		if e.Log != nil {
			logs++
		}
	}
	if spans != 1 || logs != 1 {
		t.Errorf("history: %d spans and %d logs, want one of each", spans, logs)
	}

	tap, err := c.RequestTapWithResponse(ctx, apitest.TapRequest{Broker: "rabbit-eu1", Channel: "notifications.email", Reason: "mail is late", Lease: "15m"})
	if err != nil || tap.JSON202 == nil || tap.JSON202.State != apitest.TapStateAsked {
		t.Fatalf("tap: %v %s", err, tap.Body)
	}
	taps, err := c.ListTapsWithResponse(ctx, nil)
	if err != nil || taps.JSON200 == nil || len(taps.JSON200.Taps) != 4 {
		t.Fatalf("taps: %v %s", err, taps.Body)
	}
	gone, err := c.ReleaseTapWithResponse(ctx, &apitest.ReleaseTapParams{Agent: tap.JSON202.Agent, Id: tap.JSON202.Id})
	if err != nil || gone.StatusCode() != 204 {
		t.Fatalf("release: %v %s", err, gone.Body)
	}

	wrong, err := c.SearchMessagesWithResponse(ctx, &apitest.SearchMessagesParams{Q: ptr("chanel:orders")})
	if err != nil || wrong.ApplicationproblemJSONDefault == nil || wrong.ApplicationproblemJSONDefault.Type != apitest.TagSignalboxDev2026ProblemFilter || *wrong.ApplicationproblemJSONDefault.Suggestion != "channel" {
		t.Fatalf("a wrong filter: %v %s", err, wrong.Body)
	}
	s.err = errors.Join(fmt.Errorf("engine restarts"), controlbus.ErrUnavailable)
	sick, err := c.GetHealthWithResponse(ctx)
	if err != nil || sick.JSON503 == nil || sick.JSON503.Status != apitest.HealthStatusDown {
		t.Fatalf("health: %v %s", err, sick.Body)
	}
}
