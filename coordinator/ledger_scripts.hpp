#pragma once

#include <string>
#include <vector>

#include "coordinator/core/ledger.hpp"
#include "coordinator/redis_client.hpp"

// The ledger's operations as Redis commands. Keys, all below "tessera:":
//   epoch              the leader term; every script but reads refuses a caller of another term
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

RedisCommand to_command(ledger::Operation operation, std::uint64_t epoch);
ledger::Reply to_reply(RedisValue value);

RedisCommand server_info_command();  // Answered by what read_server_info reads.
RedisCommand increment_epoch_command();
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
