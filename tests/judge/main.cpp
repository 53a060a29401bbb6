#include <iostream>

#include "judge/program.hpp"

int main(int argc, char** argv) { return ebb::judge::run(argc, argv, std::cout, std::cerr); }
