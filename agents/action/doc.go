// Package action carries out what the console orders of an agent: purge, discard,
// redrive, replay, test and peek, and says beforehand what each would do. It
// composes the small verbs of agents/ability.go with controlbus/job,
// agents/archive and agents/detour; it knows no broker.
//
//	purge, discard   Intake ─▶ archive (fsync) ─▶ checkpoint ─▶ Accept
//	redrive          Intake ─▶ Outlet (confirm) ─▶ checkpoint ─▶ Accept
//	replay           message store, by HTTP ─▶ Outlet (confirm) ─▶ checkpoint
//	undo             archive ─▶ Outlet (confirm) ─▶ checkpoint
//
// Nothing leaves a channel before it is durable elsewhere, so a crash of the
// agent, the broker or the console loses nothing; what is sent twice has the same
// operation id. Purge and discard are begun once: the executor ends one that was
// cut off as indeterminate, and the archive still has what it removed.
//
// What a command finds out while it runs, such as the channel a message died in,
// is held against the agent's own rules like its target.
package action
