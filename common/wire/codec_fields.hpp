#pragma once

#include "common/wire/protocol.hpp"

// The numbered fields of every message, once for writing and reading; included by codec.cpp only. A
// number is never used again for another meaning.
namespace tessera::protocol {

template <typename F>
void fields(F& f, Ping& m) {
  f(1, m.nonce);
}
template <typename F>
void fields(F& f, Pong& m) {
  f(1, m.nonce);
}
template <typename F>
void fields(F& f, RequestTrace& m) {
  f(1, m.id);
  f(2, m.traceparent);
}
template <typename F>
void fields(F& f, Quota& m) {
  f(1, m.limit);
  f(2, m.remaining);
  f(3, m.reset_ms);
}
template <typename F>
void fields(F& f, ErrorReply& m) {
  f(1, m.request_id);
  f(2, m.code);
  f(3, m.message);
  f(4, m.retry_after_ms);
  f(8, m.quota);
}
template <typename F>
void fields(F& f, ClientHello& m) {
  f(1, m.minor);
  f(2, m.client);
  f(3, m.tenant);
  // 4 was a token that nobody checked.
  f(5, m.ledger_id);
  f(6, m.term_seen);
}
template <typename F>
void fields(F& f, EmbedSpec& m) {
  f(1, m.model);
  f(2, m.query);
  f(3, m.instruction);
  f(4, m.dimensions);
  f(5, m.vector_type);
  f(6, m.truncate);
  f(7, m.max_tokens);
  f(8, m.prompt_name);
}
template <typename F>
void fields(F& f, ItemBlock& m) {
  f(1, m.sizes);
  f(2, m.kinds);
}
template <typename F>
void fields(F& f, ItemError& m) {
  f(1, m.index);
  f(2, m.message);
}
template <typename F>
void fields(F& f, ResultBlock& m) {
  f(1, m.codes);
  f(2, m.token_counts);
  f(3, m.tokens_cut);
  f(4, m.errors);
  f(5, m.dimensions);
  f(6, m.vector_type);
  f(7, m.cache_hits);
  f(8, m.cache_joins);
  f(9, m.cache_misses);
  f(10, m.sources);
}
template <typename F>
void fields(F& f, ModelInfo& m) {
  f(1, m.name);
  f(2, m.former_fingerprint);
  f(3, m.hidden_size);
  f(4, m.max_seqlen);
  f(5, m.vocab_size);
  f(6, m.workers);
  f(7, m.prompt_names);
  f(8, m.tokenizer_hash);
  f(9, m.fingerprint);
  f(10, m.number_format);
}
template <typename F>
void fields(F& f, JobProgress& m) {
  f(1, m.job_id);
  f(2, m.job_key);
  f(3, m.model);
  f(4, m.state);
  f(5, m.chunks_accepted);
  f(6, m.chunks_done);
  f(7, m.chunks_delivered);
  f(8, m.chunks_total);
  f(9, m.items_accepted);
  f(10, m.items_done);
  f(11, m.items_failed);
  f(12, m.tokens_done);
  f(13, m.cache_hits);
  f(14, m.cache_joins);
  f(15, m.cache_misses);
}
template <typename F>
void fields(F& f, WorkerStatus& m) {
  f(1, m.name);
  f(2, m.device);
  f(3, m.model);
  f(4, m.fingerprint);
  f(5, m.group_size);
  f(6, m.batches_in_flight);
  f(7, m.batches_done);
  f(8, m.tokens_done);
  f(9, m.tokens_per_second);
  f(10, m.device_kind);
  f(13, m.max_batch_tokens);
  f(14, m.peak_tokens_per_second);
  f(15, m.busy_share);
  f(16, m.batch_fill);
  f(17, m.temperature_c);
}
template <typename F>
void fields(F& f, WorkerRefusal& m) {
  f(1, m.name);
  f(2, m.device_kind);
  f(3, m.model);
  f(4, m.fingerprint);
  f(5, m.reason);
  f(6, m.times);
  f(7, m.age_s);
}
template <typename F>
void fields(F& f, EmbedRequest& m) {
  f(1, m.request_id);
  f(2, m.spec);
  f(3, m.lane);
  f(4, m.deadline_ms);
  f(5, m.items);
  f(6, m.no_cache);
  f(7, m.no_store);
  f(8, m.tenant);
  f(9, m.tokens_per_minute);
  f(10, m.trace);
  f(11, m.weight);
}
template <typename F>
void fields(F& f, EmbedRequests& m) {
  f(1, m.requests);
}
template <typename F>
void fields(F& f, OpenJob& m) {
  f(1, m.request_id);
  f(2, m.job_key);
  f(3, m.spec);
  f(4, m.priority);
  f(5, m.chunk_items);
  f(6, m.opener);
  f(7, m.tenant);
  f(8, m.trace);
}
template <typename F>
void fields(F& f, SubmitChunk& m) {
  f(1, m.job_id);
  f(2, m.chunk);
  f(3, m.items);
  f(4, m.digest);
}
template <typename F>
void fields(F& f, CloseJob& m) {
  f(1, m.request_id);
  f(2, m.job_id);
  f(3, m.chunks);
}
template <typename F>
void fields(F& f, ResultAck& m) {
  f(1, m.job_id);
  f(2, m.chunk);
}
template <typename F>
void fields(F& f, LeaveJob& m) {
  f(1, m.job_id);
  f(2, m.opener);
}
template <typename F>
void fields(F& f, CancelJob& m) {
  f(1, m.request_id);
  f(2, m.job_id);
}
template <typename F>
void fields(F& f, StatusRequest& m) {
  f(1, m.request_id);
  f(2, m.job_id);
}
template <typename F>
void fields(F& f, ServerHello& m) {
  f(1, m.minor);
  f(2, m.server);
  f(3, m.epoch);
  f(4, m.models);
  f(5, m.ledger_id);
}
template <typename F>
void fields(F& f, EmbedReply& m) {
  f(1, m.request_id);
  f(2, m.results);
  f(6, m.quota);
}
template <typename F>
void fields(F& f, EmbedReplies& m) {
  f(1, m.replies);
}
template <typename F>
void fields(F& f, JobOpened& m) {
  f(1, m.request_id);
  f(2, m.job_id);
  f(3, m.state);
  f(4, m.window_chunks);
  f(5, m.accepted);
  f(6, m.delivered);
}
template <typename F>
void fields(F& f, ChunkAck& m) {
  f(1, m.job_id);
  f(2, m.chunk);
  f(3, m.code);
  f(4, m.message);
  f(5, m.retry_after_ms);
}
template <typename F>
void fields(F& f, ChunkResult& m) {
  f(1, m.job_id);
  f(2, m.chunk);
  f(3, m.results);
}
template <typename F>
void fields(F& f, JobUpdate& m) {
  f(1, m.request_id);
  f(2, m.progress);
}
template <typename F>
void fields(F& f, StatusReply& m) {
  f(1, m.request_id);
  f(2, m.epoch);
  f(3, m.uptime_s);
  f(4, m.jobs);
  f(5, m.workers);
  f(6, m.models);
  f(7, m.cache_hits);
  f(8, m.cache_joins);
  f(9, m.cache_misses);
  f(10, m.tokens_done);
  f(11, m.queued_tokens);
  f(12, m.ledger_id);
  f(13, m.ledger_warning);
  f(14, m.refused_workers);
  f(15, m.ledger_away_s);
}
template <typename F>
void fields(F& f, WorkerHello& m) {
  f(1, m.minor);
  f(2, m.name);
  f(3, m.device);
  f(4, m.model);
  f(5, m.former_fingerprint);
  f(6, m.tokenizer_hash);
  f(7, m.hidden_size);
  f(8, m.vocab_size);
  f(9, m.group_size);
  f(10, m.max_batch_tokens);
  f(11, m.max_batch_sequences);
  f(12, m.max_seqlen);
  f(13, m.preferred_seqlen_min);
  f(14, m.preferred_seqlen_max);
  f(15, m.slots);
  f(16, m.cost_s);
  f(17, m.cost_s_per_token);
  f(18, m.cost_s_per_token2);
  f(19, m.process);
  f(20, m.device_kind);
  f(21, m.fingerprint);
  f(22, m.ledger_id);
  f(23, m.term_seen);
  f(24, m.number_format);
  f(25, m.express_tokens);
}
template <typename F>
void fields(F& f, BatchResult& m) {
  f(1, m.epoch);
  f(2, m.batch_id);
  f(3, m.attempt);
  f(4, m.codes);
  f(5, m.compute_us);
}
template <typename F>
void fields(F& f, WorkerGoodbye& m) {
  f(1, m.reason);
}
template <typename F>
void fields(F& f, WorkerWelcome& m) {
  f(1, m.epoch);
  f(2, m.heartbeat_ms);
  f(3, m.ledger_id);
  f(8, m.metrics_ms);
}
template <typename F>
void fields(F& f, Batch& m) {
  f(1, m.epoch);
  f(2, m.batch_id);
  f(3, m.attempt);
  f(4, m.lengths);
  f(5, m.traces);
  f(6, m.express);
}
template <typename F>
void fields(F& f, Histogram& m) {
  f(1, m.bounds);
  f(2, m.counts);
  f(3, m.sum);
}
template <typename F>
void fields(F& f, WorkerMetrics& m) {
  f(1, m.batches);
  f(2, m.sequences);
  f(3, m.tokens);
  f(4, m.failed_sequences);
  f(5, m.busy_us);
  f(6, m.batch_seconds);
  f(7, m.item_seconds);
  f(8, m.batch_fill);
  f(9, m.tokens_per_second);
  f(10, m.peak_tokens_per_second);
  f(11, m.busy_share);
  f(12, m.temperature_c);
  f(13, m.batches_held);
}
template <typename F>
void fields(F& f, MetricFamily& m) {
  f(1, m.name);
  f(2, m.help);
  f(3, m.type);
  f(4, m.labels);
  f(5, m.bounds);
  f(6, m.values);
}
template <typename F>
void fields(F& f, MetricsRequest& m) {
  f(1, m.request_id);
}
template <typename F>
void fields(F& f, MetricsReply& m) {
  f(1, m.request_id);
  f(2, m.families);
}
template <typename F>
void fields(F& f, RecordInfo& m) {
  f(1, m.id);
  f(2, m.tenant);
  f(3, m.version);
  f(4, m.open);
  f(5, m.owner);
  f(6, m.lease_left_ms);
  f(7, m.order);
  f(8, m.bytes);
}
template <typename F>
void fields(F& f, RecordPut& m) {
  f(1, m.request_id);
  f(2, m.id);
  f(3, m.tenant);
  f(4, m.expected_version);
  f(5, m.open);
}
template <typename F>
void fields(F& f, RecordQuery& m) {
  f(1, m.request_id);
  f(2, m.tenant);
  f(3, m.all_tenants);
  f(4, m.id);
  f(5, m.prefix);
  f(6, m.open_only);
  f(7, m.after);
  f(8, m.limit);
}
template <typename F>
void fields(F& f, RecordClaim& m) {
  f(1, m.request_id);
  f(2, m.id);
  f(3, m.owner);
  f(4, m.lease_ms);
}
template <typename F>
void fields(F& f, RecordDelete& m) {
  f(1, m.request_id);
  f(2, m.id);
  f(3, m.tenant);
  f(4, m.expected_version);
}
template <typename F>
void fields(F& f, RecordsReply& m) {
  f(1, m.request_id);
  f(2, m.records);
  f(3, m.more);
}

}  // namespace tessera::protocol
