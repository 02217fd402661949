// Package filter is the one language in which people say which messages they
// mean: in the search box, in live taps, alert and detour conditions, redrive
// and purge selections, and on the command line.
//
//	timeout channel:orders.* (attempts > 3 OR size >= 100kb) NOT header.x-tenant = 'acme'
//
// Parse turns text into a typed tree, bounded in length, depth and size. From
// the tree come a predicate on a message event (Match), SQL for the message
// store with bound parameters only (SQL), a sentence in English (Explain), a
// selector for brokers that take one (Selector), and text again (String).
// The registry of fields is the single source for all of them and for
// completion (Complete) and documentation.
//
// Every condition is either true or false. A field that a message does not
// have is null: any comparison with it is false, and NOT of that is true. So
// NOT outcome = 'x' and outcome != 'x' differ for messages without the field.
// docs/filter.md is the reference; a differential test holds Match and the
// store to the same answers.
package filter
