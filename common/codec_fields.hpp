#pragma once

#include "common/protocol.hpp"

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
void fields(F& f, ErrorReply& m) {
  f(1, m.request_id);
  f(2, m.code);
  f(3, m.message);
  f(4, m.retry_after_ms);
}
template <typename F>
void fields(F& f, ClientHello& m) {
  f(1, m.minor);
  f(2, m.client);
  f(3, m.tenant);
  f(4, m.token);
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
}
template <typename F>
void fields(F& f, ModelInfo& m) {
  f(1, m.name);
  f(2, m.fingerprint);
  f(3, m.hidden_size);
  f(4, m.max_seqlen);
  f(5, m.vocab_size);
  f(6, m.workers);
  f(7, m.prompt_names);
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
}
template <typename F>
void fields(F& f, EmbedRequest& m) {
  f(1, m.request_id);
  f(2, m.spec);
  f(3, m.lane);
  f(4, m.deadline_ms);
  f(5, m.items);
}
template <typename F>
void fields(F& f, OpenJob& m) {
  f(1, m.request_id);
  f(2, m.job_key);
  f(3, m.spec);
  f(4, m.priority);
}
template <typename F>
void fields(F& f, SubmitChunk& m) {
  f(1, m.job_id);
  f(2, m.chunk);
  f(3, m.items);
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
}
template <typename F>
void fields(F& f, EmbedReply& m) {
  f(1, m.request_id);
  f(2, m.results);
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
}
template <typename F>
void fields(F& f, WorkerHello& m) {
  f(1, m.minor);
  f(2, m.name);
  f(3, m.device);
  f(4, m.model);
  f(5, m.fingerprint);
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
}
template <typename F>
void fields(F& f, Batch& m) {
  f(1, m.epoch);
  f(2, m.batch_id);
  f(3, m.attempt);
  f(4, m.lengths);
}

}  // namespace tessera::protocol
