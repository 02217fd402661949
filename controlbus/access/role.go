package access

import (
	"fmt"
	"slices"
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus"
)

// Action is what a route does, as the audit trail and the roles name it. Every
// route of the console has one.
type Action string

// Actions.
const (
	// Public needs no identity: signing in, static assets, liveness.
	Public Action = "public"
	// Self needs any identity: one's own preferences, sessions and password.
	Self Action = "self"

	ViewMetadata Action = "metadata.view" // channels, message lists, headers, histories, agents
	ViewMetrics  Action = "metrics.view"  // samples: charts and the Prometheus API
	LiveTap      Action = "live.tap"      // see metadata as it passes; bodies need ReadBody, too
	SaveSearch   Action = "search.save"   // keep one's own searches
	OwnTokens    Action = "token.own"     // make and revoke one's own API tokens
	Scrape       Action = "metrics.scrape"

	ReadBody Action = "body.read"      // payloads, and search in them
	Export   Action = "message.export" // results as files

	RequestTap Action = "tap.request" // ask an agent for a tap, and give it back
	Operate    Action = "operate"     // commands that destroy nothing

	Approve Action = "command.approve" // a second person's consent
	Destroy Action = "command.destroy" // request what removes messages: purge, discard

	ManageUsers    Action = "user.manage"
	ManageTokens   Action = "token.manage"
	ManageAgents   Action = "agent.manage" // enrolment, credentials, forgetting
	ManageSettings Action = "settings.manage"
	ReadAudit      Action = "audit.read"

	IngestTelemetry Action = "telemetry.write" // OTLP
	AgentLink       Action = "agent.link"      // reports of agents and what is wanted of them
	Enrol           Action = "agent.enrol"     // exchange an enrolment token for a credential
)

// Role is a named set of actions. Those of people form a ladder: each may all
// that the one before it may.
type Role string

// Roles.
const (
	Viewer   Role = "viewer"
	Reader   Role = "reader"
	Operator Role = "operator"
	Approver Role = "approver"
	Admin    Role = "admin"

	// Sender and Agent are for programs; they read nothing.
	Sender Role = "sender" // a service that sends telemetry
	Agent  Role = "agent"  // a signalbox-agent
	// Enroller is an enrolment token's: good for becoming an agent, once.
	Enroller Role = "enroller"
)

// Roles of people and API tokens, weakest first.
func Roles() []Role { return []Role{Viewer, Reader, Operator, Approver, Admin} }

// own is what each role may beyond those below it on the ladder.
var own = map[Role][]Action{
	Viewer:   {ViewMetadata, ViewMetrics, LiveTap, SaveSearch, OwnTokens, Scrape},
	Reader:   {ReadBody, Export},
	Operator: {RequestTap, Operate},
	Approver: {Approve, Destroy},
	Admin:    {ManageUsers, ManageTokens, ManageAgents, ManageSettings, ReadAudit},
	Sender:   {IngestTelemetry},
	Agent:    {IngestTelemetry, AgentLink},
	Enroller: {Enrol},
}

// table is the one answer to what a role may.
var table = func() map[Role]map[Action]bool {
	t := map[Role]map[Action]bool{}
	below := map[Action]bool{}
	for _, r := range Roles() {
		t[r] = map[Action]bool{}
		for _, a := range own[r] {
			below[a] = true
		}
		for a := range below {
			t[r][a] = true
		}
	}
	for _, r := range []Role{Sender, Agent, Enroller} {
		t[r] = map[Action]bool{}
		for _, a := range own[r] {
			t[r][a] = true
		}
	}
	return t
}()

// Actions lists all actions, those of the weakest roles first.
func Actions() []Action {
	all := []Action{Public, Self}
	for _, r := range append(Roles(), Sender, Agent, Enroller) {
		for _, a := range own[r] {
			if !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	return all
}

// Known says whether an action is one of the constants. A route must name one.
func (a Action) Known() bool { return slices.Contains(Actions(), a) }

// Global says that an action is not about one environment: who has it for a
// part of them has it not.
func (a Action) Global() bool {
	switch a {
	case ManageUsers, ManageTokens, ManageAgents, ManageSettings, ReadAudit, Scrape:
		return true
	}
	return false
}

// May says whether a role includes an action.
func (r Role) May(a Action) bool { return table[r][a] }

// Known says whether a role exists.
func (r Role) Known() bool { return table[r] != nil }

// Human says whether a role is on the ladder of people.
func (r Role) Human() bool { return slices.Contains(Roles(), r) }

// Covers says whether a role may all that another may.
func (r Role) Covers(other Role) bool {
	if !r.Known() || !other.Known() {
		return false
	}
	for a := range table[other] {
		if !table[r][a] {
			return false
		}
	}
	return true
}

// Grant gives a role on the channels of the environments that match. * stands
// for any run of characters.
type Grant struct {
	Role    Role   `json:"role" yaml:"role"`
	Env     string `json:"env" yaml:"env"`
	Channel string `json:"channel" yaml:"channel"`
}

// Everywhere is a role without limits.
func Everywhere(r Role) []Grant { return []Grant{{Role: r, Env: "*", Channel: "*"}} }

func (g Grant) String() string {
	switch {
	case g.Env == "*" && g.Channel == "*":
		return string(g.Role) + " everywhere"
	case g.Channel == "*":
		return string(g.Role) + " in " + g.Env
	}
	return string(g.Role) + " in " + g.Env + " on " + g.Channel
}

func (g Grant) may(a Action, env, channel string) bool {
	return g.Role.May(a) && controlbus.MatchPattern(g.Env, env) && controlbus.MatchPattern(g.Channel, channel)
}

// covers says whether everything another grant allows is allowed by this one.
// The star of the other's pattern is a character to this one's star, and what
// takes the star in takes in whatever it stands for.
func (g Grant) covers(other Grant) bool {
	return g.Role.Covers(other.Role) && controlbus.MatchPattern(g.Env, other.Env) && controlbus.MatchPattern(g.Channel, other.Channel)
}

// maxGrants bounds what one identity may hold: every read is limited by all of
// them.
const maxGrants = 50

// CheckGrants completes and checks grants: an empty pattern becomes *. Errors
// are controlbus.ErrInvalid.
func CheckGrants(grants []Grant) ([]Grant, error) {
	if len(grants) > maxGrants {
		return nil, fmt.Errorf("%w: %d grants: want at most %d", controlbus.ErrInvalid, len(grants), maxGrants)
	}
	var out []Grant
	for _, g := range grants {
		g.Env, g.Channel = strings.TrimSpace(g.Env), strings.TrimSpace(g.Channel)
		if g.Env == "" {
			g.Env = "*"
		}
		if g.Channel == "" {
			g.Channel = "*"
		}
		switch {
		case !g.Role.Known():
			return nil, fmt.Errorf("%w: role %.40q: want one of %s", controlbus.ErrInvalid, string(g.Role), roleNames())
		case len(g.Env) > 200 || len(g.Channel) > 500:
			return nil, fmt.Errorf("%w: grant: want an environment of at most 200 and a channel of at most 500 bytes", controlbus.ErrInvalid)
		}
		if !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out, nil
}

func roleNames() string {
	var names []string
	for _, r := range Roles() {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}
