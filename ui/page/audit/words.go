package audit

import (
	"strings"

	"github.com/signalbox-dev/signalbox/controlbus/access"
	"github.com/signalbox-dev/signalbox/ui/component"
)

// words are what the codes mean, as the middle of "<who> … <what>".
var words = []component.Pair{
	{Name: access.EventLogin, Value: "signed in"}, {Name: access.EventLoginFailed, Value: "failed to sign in"}, {Name: access.EventThrottled, Value: "was slowed down after many tries"},
	{Name: access.EventLogout, Value: "signed out"}, {Name: access.EventSessionEnd, Value: "ended a session of"},
	{Name: access.EventSetup, Value: "made the first user"}, {Name: access.EventUserAdd, Value: "added the user"}, {Name: access.EventUserGrants, Value: "changed the roles of"},
	{Name: access.EventUserDisable, Value: "disabled"}, {Name: access.EventUserEnable, Value: "enabled"}, {Name: access.EventUserDelete, Value: "deleted"},
	{Name: access.EventPasswordLink, Value: "made a password link for"}, {Name: access.EventPasswordSet, Value: "set the password of"},
	{Name: access.EventTokenCreate, Value: "made the token"}, {Name: access.EventTokenRevoke, Value: "revoked"},
	{Name: access.EventEnrolCreate, Value: "made the enrolment token"}, {Name: access.EventEnrol, Value: "enrolled"}, {Name: access.EventEnrolFailed, Value: "was refused to enrol as"},
	{Name: access.EventBodyRead, Value: "read the payload of"}, {Name: access.EventBodyPreview, Value: "saw beginnings of payloads"}, {Name: access.EventExport, Value: "exported"},
	{Name: access.EventLiveTap, Value: "watched live"}, {Name: access.EventTapRequest, Value: "asked for a tap from"}, {Name: access.EventTapRelease, Value: "gave back a tap of"},
	{Name: access.EventAgentForget, Value: "forgot"}, {Name: access.EventSettingsChange, Value: "changed the settings"},

	{Name: "command.request", Value: "asked for"}, {Name: "command.requested", Value: "asked for"}, {Name: "command.awaiting_approval", Value: "holds for a second person"},
	{Name: "command.approve", Value: "wanted to agree to"}, {Name: "command.approved", Value: "agreed to"}, {Name: "command.refuse", Value: "wanted to refuse"}, {Name: "command.refused", Value: "refused"},
	{Name: "command.queued", Value: "queued"}, {Name: "command.dispatched", Value: "sent to its agent"}, {Name: "command.accepted", Value: "took up"}, {Name: "command.running", Value: "began"},
	{Name: "command.control", Value: "changed the pace of"}, {Name: "command.cancel", Value: "wanted to stop"}, {Name: "command.cancel_asked", Value: "asked to stop"}, {Name: "command.cancelled", Value: "cancelled"},
	{Name: "command.abandon", Value: "wanted to give up waiting for"}, {Name: "command.unconfirmed", Value: "lost the agent of"}, {Name: "command.indeterminate", Value: "does not know how it ended:"},
	{Name: "command.succeeded", Value: "finished"}, {Name: "command.partial", Value: "finished in part"}, {Name: "command.failed", Value: "failed at"}, {Name: "command.rejected", Value: "refused to begin"},
	{Name: "command.expired", Value: "let expire"}, {Name: "command.undone", Value: "saw taken back"}, {Name: "command.late_result", Value: "told late how it ended:"},
	{Name: "audit.verify", Value: "verified the audit trail"},
}

func word(code string) string {
	for _, w := range words {
		if w.Name == code {
			return w.Value
		}
	}
	return component.Visible(strings.NewReplacer(".", " ", "_", " ").Replace(code))
}
