#include "common/os/lock_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

#include "common/check.hpp"
#include "tests/support/as_nobody.hpp"

namespace tessera {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;

class LockFileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "lock_file_test_" + std::to_string(getpid());
    std::filesystem::create_directories(folder_);
    path_ = folder_ + "/lock";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::string folder_;
  std::string path_;
};

TEST_F(LockFileTest, TheHolderIsNamed) {
  LockFile first;
  EXPECT_FALSE(first.take(path_, "first program"));
  LockFile second;
  const auto holder = second.take(path_, "second program");
  ASSERT_TRUE(holder);
  EXPECT_EQ(holder->pid, getpid());
  EXPECT_EQ(holder->program, "first program");
  EXPECT_TRUE(holder->running);
  EXPECT_THAT(to_string(*holder), MatchesRegex("in use by process [0-9]+ \\(first program\\) since "
                                               "[0-9]+-[0-9]+-[0-9]+T[0-9]+:[0-9]+:[0-9]+Z"));
}

TEST_F(LockFileTest, EndsWithItsOwner) {
  { EXPECT_FALSE(LockFile().take(path_, "a much longer name of a program")); }
  LockFile second;
  EXPECT_FALSE(second.take(path_, "next"));
  EXPECT_EQ(LockFile().take(path_, "third")->program, "next");
}

TEST_F(LockFileTest, AChildThatOutlivesItsParentHoldsTheLockOfADeadProcess) {
  int child_says[2];
  ASSERT_EQ(pipe(child_says), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    LockFile lock;
    (void)lock.take(path_, "parent", LockFile::Inherit::kByChildren);
    const pid_t child = fork();
    if (child == 0) {
      pause();
    }
    (void)!write(child_says[1], &child, sizeof(child));
    _exit(0);
  }
  pid_t child = 0;
  ASSERT_EQ(read(child_says[0], &child, sizeof(child)), static_cast<ssize_t>(sizeof(child)));
  ASSERT_EQ(waitpid(parent, nullptr, 0), parent);
  const auto holder = LockFile().take(path_, "late");
  ASSERT_TRUE(holder);
  EXPECT_EQ(holder->pid, parent);
  EXPECT_FALSE(holder->running);
  kill(child, SIGKILL);
}

TEST_F(LockFileTest, TextOfNoHolderIsNoHolder) {
  for (const char* text : {"", "12", "x y z", "1 2 host", "99999999999999999999 1 h t p"}) {
    LockFile mine;
    EXPECT_FALSE(mine.take(path_, "mine"));
    std::ofstream(path_) << text;
    const auto holder = LockFile().take(path_, "other");
    ASSERT_TRUE(holder) << text;
    EXPECT_EQ(holder->pid, 0) << text;
    EXPECT_FALSE(holder->running) << text;
    EXPECT_EQ(to_string(*holder), "in use by another process");
  }
}

TEST_F(LockFileTest, SaysWhyItCannotBeMade) {
  EXPECT_THAT(test::error_as_nobody([&] { (void)LockFile().take(path_, "me"); }),
              HasSubstr("lock: Permission denied"));
  EXPECT_THROW((void)LockFile().take(folder_ + "/none/lock", "me"), FatalError);
}

}  // namespace
}  // namespace tessera
