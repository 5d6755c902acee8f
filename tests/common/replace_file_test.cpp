#include "common/os/replace_file.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "common/check.hpp"
#include "tests/support/as_nobody.hpp"

namespace tessera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

class ReplaceFileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "replace_file_test_" + std::to_string(getpid());
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string in(const std::string& name) { return folder_ + "/" + name; }
  std::size_t entries() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  std::string folder_;
};

TEST_F(ReplaceFileTest, ANewAndAnOldFile) {
  for (const char* text : {"first", "second and longer", ""}) {
    replace_file(in("a"), text);
    EXPECT_EQ(text_of(in("a")), text);
  }
  EXPECT_EQ(entries(), 1U);
}

TEST_F(ReplaceFileTest, TheModeStaysAndAFileWithALikelyNameToo) {
  std::ofstream(in("a")) << "old";
  std::ofstream(in("a.new")) << "precious";
  ASSERT_EQ(chmod(in("a").c_str(), 0640), 0);
  replace_file(in("a"), "new");
  EXPECT_EQ(fs::status(in("a")).permissions(), static_cast<fs::perms>(0640));
  EXPECT_EQ(text_of(in("a.new")), "precious");
}

TEST_F(ReplaceFileTest, LinksStayAndTheirTargetsAreReplaced) {
  struct Case {
    const char* link;
    std::string to;
    const char* target;
  };
  fs::create_directories(in("sub"));
  std::ofstream(in("sub/there")) << "old";
  const Case cases[] = {{"relative", "sub/there", "sub/there"},
                        {"absolute", in("sub/there"), "sub/there"},
                        {"dangling", "sub/fresh", "sub/fresh"},
                        {"chain", "relative", "sub/there"},
                        {"up", "sub/../sub/there", "sub/there"}};
  for (const Case& c : cases) {
    fs::create_symlink(c.to, in(c.link));
    const auto before = fs::exists(in(c.target)) ? std::ifstream(in(c.target)) : std::ifstream();
    replace_file(in(c.link), c.link);
    EXPECT_TRUE(fs::is_symlink(in(c.link))) << c.link;
    EXPECT_TRUE(fs::is_regular_file(fs::symlink_status(in(c.target)))) << c.link;
    EXPECT_EQ(text_of(in(c.target)), c.link);
  }
  fs::create_symlink("loop", in("loop"));
  EXPECT_THROW(replace_file(in("loop"), "x"), FatalError);
}

// Who reads the old file while it is replaced goes on reading the old text.
TEST_F(ReplaceFileTest, ATargetIsReplacedInOneStep) {
  std::ofstream(in("target")) << "old text";
  fs::create_symlink("target", in("link"));
  std::ifstream open_before(in("target"));
  replace_file(in("link"), "new");
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(open_before), {}), "old text");
}

TEST_F(ReplaceFileTest, AFifoIsWrittenThrough) {
  ASSERT_EQ(mkfifo(in("fifo").c_str(), 0600), 0);
  fs::create_symlink("fifo", in("link"));
  const std::string text(200'000, 'x');  // More than a pipe holds.
  for (const char* name : {"fifo", "link"}) {
    std::string got;
    std::jthread reader([&] { got = text_of(in("fifo")); });
    check_replaceable(in(name));
    replace_file(in(name), text);
    reader.join();
    EXPECT_EQ(got, text);
    EXPECT_TRUE(fs::is_fifo(in("fifo")));
  }
  EXPECT_EQ(entries(), 2U);
}

TEST_F(ReplaceFileTest, DevicesAreWrittenThrough) {
  fs::create_symlink("/dev/null", in("null"));
  for (const std::string& path : {std::string("/dev/null"), in("null")}) {
    replace_file(path, "gone");
    EXPECT_TRUE(fs::is_character_file("/dev/null"));
  }
  EXPECT_THROW(replace_file("/dev/full", "x"), FatalError);
}

// Appended where the descriptor stands, as a shell's >> asks for.
TEST_F(ReplaceFileTest, OwnDescriptorsAreWrittenThrough) {
  const int fd = open(in("log").c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  const std::string number = std::to_string(fd);
  fs::create_symlink("/dev/fd/" + number, in("link"));
  std::string expected;
  for (const std::string& path : {"/dev/fd/" + number, "/proc/self/fd/" + number, in("link")}) {
    replace_file(path, path + "\n");
    expected += path + "\n";
  }
  close(fd);
  EXPECT_EQ(text_of(in("log")), expected);
  EXPECT_THROW(replace_file("/dev/fd/" + number, "x"), FatalError);
}

TEST_F(ReplaceFileTest, StdoutIsWrittenThroughBehindWhatWasPrinted) {
  std::fflush(stdout);
  const int saved = dup(STDOUT_FILENO);
  const int fd = open(in("out").c_str(), O_WRONLY | O_CREAT, 0600);
  dup2(fd, STDOUT_FILENO);
  std::printf("first ");
  replace_file("/dev/stdout", "second");
  dup2(saved, STDOUT_FILENO);
  close(saved);
  close(fd);
  EXPECT_EQ(text_of(in("out")), "first second");
}

TEST_F(ReplaceFileTest, WhatCannotBeWrittenIsToldBeforeAndNothingIsLeft) {
  fs::create_directories(in("folder"));
  std::ofstream(in("locked")) << "old";
  chmod(in("locked").c_str(), 0444);
  fs::permissions(folder_, fs::perms::all);
  fs::permissions(in("folder"), static_cast<fs::perms>(0555));
  struct Case {
    std::string path;
    const char* reason;
  };
  const Case cases[] = {{in("folder"), "Is a directory"},
                        {in("none/a"), "No such file or directory"},
                        {in("locked/a"), "Not a directory"},
                        {in("locked"), "Permission denied"},
                        {in("folder/new"), "Permission denied"}};
  for (const Case& c : cases) {
    EXPECT_THAT(test::error_as_nobody([&] { check_replaceable(c.path); }),
                HasSubstr(c.path + ": " + c.reason));
    EXPECT_THAT(test::error_as_nobody([&] { replace_file(c.path, "x"); }), HasSubstr(c.reason));
  }
  EXPECT_EQ(text_of(in("locked")), "old");
  EXPECT_EQ(entries(), 2U);
}

}  // namespace
}  // namespace tessera
