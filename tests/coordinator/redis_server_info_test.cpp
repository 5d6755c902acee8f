#include "coordinator/redis_server_info.hpp"

#include <gmock/gmock.h>

namespace tessera::coordinator {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

RedisServerInfo server(std::uint64_t maxmemory, std::string eviction, bool append_only = true) {
  return {.maxmemory = maxmemory, .eviction = std::move(eviction), .append_only = append_only};
}

TEST(RedisServerInfo, IsReadFromItsLines) {
  const RedisServerInfo found = read_server_info(
      "# Memory\r\nused_memory:1000\r\nmaxmemory:100663296\r\nmaxmemory_human:96.00M\r\n"
      "maxmemory_policy:volatile-lru\r\n\r\n# Persistence\r\naof_enabled:1\r\n");
  EXPECT_EQ(found.maxmemory, 100663296U);
  EXPECT_EQ(found.eviction, "volatile-lru");
  EXPECT_TRUE(found.append_only);
}

TEST(RedisServerInfo, KeepsItsDefaultsForWhatIsMissingOrDamaged) {
  for (const char* text :
       {"", "\n", ":", "maxmemory", "maxmemory:x\nmaxmemory_policy\naof_enabled:0"}) {
    const RedisServerInfo found = read_server_info(text);
    EXPECT_EQ(found.maxmemory, 0U);
    EXPECT_EQ(found.eviction, "");
    EXPECT_FALSE(found.append_only);
  }
}

TEST(RedisServerInfo, RefusesEvictionOfAnyKey) {
  EXPECT_THAT(ledger_refusal(server(1, "allkeys-random")), HasSubstr("allkeys-random"));
  EXPECT_EQ(ledger_refusal(server(0, "allkeys-lru")), "") << "never full";
  EXPECT_EQ(ledger_refusal(server(1, "volatile-lru")), "");
  EXPECT_EQ(ledger_refusal(server(1, "noeviction")), "");
}

TEST(RedisServerInfo, WarnsOfWhatLosesOrBlocksJobs) {
  EXPECT_THAT(ledger_warnings(server(1, "volatile-lru"), true), IsEmpty());
  EXPECT_THAT(ledger_warnings(server(1, "volatile-lru", false), true),
              ElementsAre(HasSubstr("appendonly")));
  EXPECT_THAT(ledger_warnings(server(1, "noeviction"), true),
              ElementsAre(HasSubstr("volatile-lru")));
  EXPECT_THAT(ledger_warnings(server(1, "noeviction"), false), IsEmpty());
  EXPECT_THAT(ledger_warnings(server(0, "noeviction"), true), IsEmpty());
}

}  // namespace
}  // namespace tessera::coordinator
