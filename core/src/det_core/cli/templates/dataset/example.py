from $module import ${Part}Config

train = ${Part}Config(annotations="train.csv", images="photos")
