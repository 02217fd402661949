package controlbus

// Attribute keys, after OpenTelemetry semantic conventions v1.44 (messaging is
// "Development" there, so older names are accepted on the way in; package
// controlbus/telemetry has the table). Look here before inventing one; our
// own begin with "signalbox.".
const (
	// EventMessage is the EventName of a log record that is a message event.
	EventMessage = "messaging.message"
	// EventCommandMessage is the EventName of a log record that says what a
	// command did with one message. It carries AttrCommand, AttrCommandKind,
	// AttrCommandOutcome, AttrCommandNumber; AttrDestination and AttrBroker of where
	// the message went, AttrCommandSource, AttrMessageID, AttrConversationID, and
	// AttrUID of the stored message it came from, where known.
	EventCommandMessage = "signalbox.command.message"

	AttrServiceName     = "service.name"
	AttrServiceInstance = "service.instance.id"
	AttrServiceVersion  = "service.version"
	AttrHostName        = "host.name"
	AttrEnvironment     = "deployment.environment.name"
	AttrErrorType       = "error.type"

	AttrSystem          = "messaging.system"
	AttrDestination     = "messaging.destination.name"
	AttrPartition       = "messaging.destination.partition.id"
	AttrConsumerGroup   = "messaging.consumer.group.name"
	AttrOperationName   = "messaging.operation.name"
	AttrOperationType   = "messaging.operation.type"
	AttrMessageID       = "messaging.message.id"
	AttrConversationID  = "messaging.message.conversation_id"
	AttrBodySize        = "messaging.message.body.size"
	AttrRabbitMQRouting = "messaging.rabbitmq.destination.routing_key"

	AttrUID              = "signalbox.uid"         // 32 hex digits
	AttrBroker           = "signalbox.broker"      // configured broker name
	AttrTimeSource       = "signalbox.time.source" // broker, producer, agent
	AttrOutcome          = "signalbox.outcome"
	AttrPublisher        = "signalbox.publisher" // service that sent the message
	AttrRoutingKey       = "signalbox.routing_key"
	AttrPosition         = "signalbox.position"
	AttrDelivery         = "signalbox.delivery.count"
	AttrCausationID      = "signalbox.causation_id"
	AttrReplyTo          = "signalbox.reply_to"
	AttrLatency          = "signalbox.latency_ns"
	AttrDeadLetterSource = "signalbox.dead_letter.source"
	AttrDeadLetterReason = "signalbox.dead_letter.reason"
	AttrContentType      = "signalbox.content.type"
	AttrContentEncoding  = "signalbox.content.encoding"
	AttrHeaders          = "signalbox.headers" // kvlist of strings, names may repeat
	AttrBodyPolicy       = "signalbox.body.policy"
	AttrBodyTruncated    = "signalbox.body.truncated"
	AttrBodySHA256       = "signalbox.body.sha256"
	AttrTap              = "signalbox.tap.id"
	AttrGapBefore        = "signalbox.gap_before"
	AttrRedacted         = "signalbox.redacted" // array of rule names

	AttrCommand        = "signalbox.command.id"
	AttrCommandKind    = "signalbox.command.kind"
	AttrCommandOutcome = "signalbox.command.outcome" // sent, removed, failed, skipped, returned
	AttrCommandNumber  = "signalbox.command.number"  // of the message within the command, from 1
	AttrCommandSource  = "signalbox.command.source"  // channel it was taken from
	AttrCommandDetail  = "signalbox.command.detail"  // why it failed or was skipped
)

// Metrics with which an agent describes the channels of a broker. All carry
// AttrSystem, AttrBroker, AttrDestination; the environment is on the resource.
const (
	// MetricChannelMessages is a gauge with AttrMessageState: ready is what waits
	// to be delivered, unacked what was delivered and not settled.
	MetricChannelMessages = "signalbox.channel.messages"
	// MetricChannelStored is a gauge of what a channel keeps, read or not, where
	// that is more than what waits: a log's messages.
	MetricChannelStored    = "signalbox.channel.stored"
	MetricChannelBytes     = "signalbox.channel.bytes"     // gauge, By
	MetricChannelConsumers = "signalbox.channel.consumers" // gauge
	MetricChannelPublished = "signalbox.channel.published" // cumulative sum
	MetricChannelDelivered = "signalbox.channel.delivered" // cumulative sum
	MetricChannelAcked     = "signalbox.channel.acked"     // cumulative sum
	MetricChannelLag       = "signalbox.channel.lag"       // gauge; AttrConsumerGroup
	MetricBrokerUp         = "signalbox.broker.up"         // gauge 0 or 1

	AttrMessageState = "signalbox.message.state"
	// AttrChannelKind is the broker's own word: queue, quorum queue, stream,
	// subject, exchange.
	AttrChannelKind = "signalbox.channel.kind"
)

// HTTP headers and their gRPC metadata twins with which an agent numbers its
// batches, so that the collector is an Idempotent Receiver. A sender is an
// agent's spool: the number restarts only with a new sender name.
const (
	HeaderSender = "Signalbox-Sender" // <agent id>/<spool id>
	// HeaderBatch is a rising decimal number. A sender has one batch in flight and
	// goes on only when it was acknowledged: a number at or below the highest
	// acknowledged one counts as sent again.
	HeaderBatch = "Signalbox-Batch"
	// HeaderSentAt is the sender's clock in Unix nanoseconds when the request
	// left, for the clock-offset estimate.
	HeaderSentAt = "Signalbox-Sent-At"
)
