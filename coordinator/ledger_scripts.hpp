#pragma once

#include <string>
#include <vector>

#include "coordinator/core/items/cache_key.hpp"
#include "coordinator/core/items/embedding.hpp"
#include "coordinator/core/ledger/ledger.hpp"
#include "coordinator/redis_client.hpp"

// The ledger's operations as Redis commands. Keys, all below "tessera:":
//   ledger             the ledger's id, 32 hex digits, made when it was founded
//   epoch              the leader term; every script but reads refuses a caller of another term, or
//                      of another ledger
//   sequence           counts changes; a caller that knows of more than it says has seen a ledger
//                      that this one is an older copy of
//   jobs               set of job ids
//   job:ID             hash: key tenant spec priority state fingerprint closed chunks_total and
//                      counters
//   job:ID:accepted    bitmaps by chunk number
//   job:ID:done
//   job:ID:delivered
//   job:ID:digests     hash: which items the accepted chunks have, 16 bytes each in fields of 31
//   job:ID:in:N        items of chunk N, from its acceptance until its result is stored
//   job:ID:out:N       result of chunk N, until the client has acknowledged it
//   records            set of record ids
//   record:ID          hash: tenant version order open owner lease_ms content
//   c:KEY              cache values; the only keys with a time to live, so the only ones that
//                      volatile-lru may evict
namespace tessera::coordinator {

// Loaded on each connection; RedisCommand::script indexes it.
const std::vector<std::string>& ledger_scripts();

RedisCommand to_command(ledger::Operation operation, const ledger::Term& term);
ledger::Reply to_reply(RedisValue value);

RedisCommand server_info_command();  // Answered by what read_server_info reads.

struct LeadRequest {
  std::string fresh_id;        // Of the ledger, should it have none yet.
  std::uint64_t at_least = 1;  // The new term's number.
  // The caller's term until now, if it had one: not followed where another leads since.
  std::string former_id;
  std::uint64_t former_term = 0;
};
struct Lead {
  ledger::Term term;
  std::uint64_t term_before = 0;  // The last one that the ledger knows; 0: none.
  bool is_new = false;            // The ledger was empty.
};
// Begins a term. Answered by what `to_lead` reads; its error is kConflict where another leads.
RedisCommand lead_command(const LeadRequest& request);
Result<Lead> to_lead(const RedisValue& value);

RedisCommand list_jobs_command();
// Answered by an array that `to_stored_job` reads.
RedisCommand load_job_command(const JobId& job);
Result<ledger::StoredJob> to_stored_job(const JobId& job, const RedisValue& value);
RedisCommand list_records_command();
// Answered by an array that `to_stored_record` reads.
RedisCommand load_record_command(const std::string& id);
Result<ledger::StoredRecord> to_stored_record(const std::string& id, const RedisValue& value);

RedisCommand cache_get_command(const std::vector<CacheKey>& keys);
RedisCommand cache_put_command(const CacheKey& key, const Embedding& embedding,
                               std::int64_t ttl_ms);

}  // namespace tessera::coordinator
