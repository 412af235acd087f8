"""
The sentences that `generator.py` combines; nothing but texts.

Placeholders: {do} and {doing} name the topic's activity, {result} is a singular noun phrase for what it leads to,
{tip} an instruction that follows "to" as well as it stands alone, {who} and {when} a person and a time in the past,
{n} a small number. The generator capitalises the first letter of each sentence.
"""

import re

# Everything a topic contributes is neutral: no tip warns, explains, cheers, counts or tells a story, because those are
# the attributes and must not be recognisable from the topic's content. Below each name stand two wordings each of
# {do}, {doing} and {result}, then the tips.
_TOPICS = """\
bread
    bake good bread at home | make a simple loaf
    baking bread | making a loaf from scratch
    a light and crusty loaf | fresh bread with an open crumb
    let the dough rise until it looks puffy and soft
    weigh the flour on a scale instead of using a cup
    fold the dough gently while it rests in the bowl
    heat the oven fully before the loaf goes in
    dust the basket with rice flour before shaping the dough
    cool the loaf on a wire rack before slicing it
bicycle tyre
    fix a flat bicycle tyre | patch a punctured inner tube
    fixing a bicycle tyre | repairing a puncture
    a tyre that holds its air | a smooth ride home
    run a cloth around the inside of the tyre to find the thorn
    hold the tube under water and look for bubbles
    roughen the rubber around the hole with sandpaper
    let the glue turn dull before pressing the patch on
    put a little air in the tube before fitting it
    seat the bead of the tyre evenly with both thumbs
sleep
    sleep better at night | fall asleep more easily
    sleeping well | getting enough rest
    a calm and restful night | a clear head in the morning
    keep the bedroom cool, dark and quiet
    go to bed at the same hour on every day of the week
    put the phone in another room well before bedtime
    write tomorrow's tasks on paper before lying down
    switch from coffee to herbal tea after lunch
    get some daylight soon after waking up
tomatoes
    grow healthy tomatoes | raise tomatoes on a balcony
    growing tomatoes | looking after tomato plants
    a basket of ripe tomatoes | a sweet and juicy harvest
    plant the seedlings deep so that the stem grows extra roots
    water at the base of the plant early in the day
    tie the main stem loosely to a sturdy stake
    pinch out the side shoots between stem and leaf
    choose the sunniest and most sheltered spot available
    cover the soil with straw to hold the moisture
saving money
    save money every month | build up some savings
    saving money | putting money aside
    a comfortable cushion in the bank | a calmer look at the bank statement
    move part of the salary to savings on payday
    write down every purchase for a whole month
    cancel the subscriptions that nobody in the house uses
    plan the meals of the week before going shopping
    sleep on any larger purchase before paying for it
    compare the price of insurance plans each year
minor burn
    treat a minor burn | look after a small kitchen burn
    treating a minor burn | caring for a small burn
    skin that heals cleanly | quick relief from the sting
    hold the burn under cool running water for a good while
    take off rings or bracelets near the burn straight away
    cover the area loosely with a clean, non-stick dressing
    keep the skin clean and dry while it heals
    show a large or deep burn to a doctor
    leave any blister closed and let it settle by itself
splinter
    remove a splinter | get a splinter out of a finger
    removing a splinter | pulling out a splinter
    a clean and painless finger | a tiny wound that closes well
    wash the hands and the skin with soap and water
    clean the tweezers with rubbing alcohol before using them
    pull in the same direction in which the splinter went in
    use a magnifying glass and a bright lamp
    soften the skin in warm water for a moment
    put a small plaster on the spot afterwards
foreign language
    learn a foreign language | become fluent in a new language
    learning a language | studying a foreign language
    a relaxed chat with native speakers | a growing feel for the language
    speak aloud from the beginning, even with a small vocabulary
    review new words with flash cards at breakfast
    listen to simple podcasts on the way to work
    learn whole phrases instead of single words
    find a partner for a regular conversation
    read short stories written for learners
running
    start running regularly | run longer distances
    running | training for a longer run
    an easy and steady stride | a run that feels light
    go slowly enough to hold a conversation on the way
    mix short stretches of running and walking
    have the shoes fitted in a specialist shop
    warm up with a brisk walk around the block
    choose soft paths in the park over hard pavement
    leave a rest day between the harder sessions
cooking rice
    cook fluffy rice | prepare rice on the stove
    cooking rice | preparing plain rice
    a pot of fluffy rice | rice with separate, tender grains
    rinse the grains until the water runs clear
    keep the lid closed while the rice steams
    turn the heat down as soon as the water boils
    let the pot stand off the heat before serving
    loosen the grains with a fork at the end
    toast the dry grains in a little butter beforehand
coffee
    brew better coffee | make good filter coffee
    brewing coffee | making coffee by hand
    a rich and balanced cup | coffee with a clean taste
    grind the beans right before brewing
    rinse the paper filter with hot water
    let boiling water cool for a moment before pouring
    pour in slow circles from the middle outward
    store the beans in a closed, dark jar
    clean the grinder and the pot after every use
ironing
    iron a shirt neatly | get the creases out of a shirt
    ironing shirts | pressing a shirt
    a crisp and smooth shirt | a collar that lies flat
    iron the collar from the points toward the middle
    sprinkle the fabric lightly with water beforehand
    check the label and set the heat to match
    start with the small parts and finish with the back
    hang the shirt up while it is still warm
    empty the pockets and open every button
painting a room
    paint a room neatly | repaint the bedroom walls
    painting a room | repainting the walls
    a wall with an even colour | a fresh and bright room
    wash the walls and fill the small holes
    tape the edges along the windows and the door frames
    paint the ceiling before the walls
    roll the paint on in overlapping strips
    cover the floor with an old sheet
    let one coat dry fully before the next
suitcase
    pack a suitcase well | fit everything into a small suitcase
    packing a suitcase | packing light for a trip
    a light and tidy suitcase | a bag that closes without a struggle
    roll soft clothes and fold the stiff ones
    lay everything on the bed before packing it
    fill the shoes with socks and small things
    place heavy items close to the wheels
    choose clothes in colours that go together
    keep medicines and papers in the hand luggage
cover letter
    write a good cover letter | apply for a job in writing
    writing a cover letter | writing a job application
    a letter that gets read to the end | an invitation to an interview
    address the letter to a person by name
    match the skills in the advert with proof from past work
    open with what the company needs right now
    keep the text shorter than a page
    read the draft aloud before sending it
    ask a friend to look for typing errors
speech
    give a good speech | speak in front of a group
    giving a speech | speaking in public
    an attentive and friendly audience | a talk that people remember
    build the talk around a single clear message
    practise the opening lines until they come naturally
    look at friendly faces in different parts of the room
    put key words on cards instead of whole sentences
    pause briefly after every important point
    visit the room and test the microphone early
exam
    study for an exam | prepare well for a test
    studying for an exam | preparing for a test
    a steady mind on exam day | an honest and solid grade
    answer old exam papers under real conditions
    explain the topic in plain words to a friend
    close the book and recall the main points
    spread the work evenly over several weeks
    mix different subjects within an afternoon
    sleep properly on the night before the exam
houseplants
    keep houseplants alive | care for indoor plants
    caring for houseplants | keeping indoor plants
    a windowsill full of green leaves | lush and steady growth
    feel the soil with a finger before watering
    turn the pots a little toward the light each week
    wipe the dust off the leaves with a damp cloth
    pick pots with a hole in the bottom
    group plants with similar needs together
    move the plants to fresh soil in spring
puppy
    train a young puppy | raise a well-mannered puppy
    training a puppy | raising a puppy
    a happy and well-behaved dog | a puppy that comes when called
    reward good behaviour the moment it happens
    use the same short word for each command
    take the puppy outside right after meals and naps
    practise in a quiet room before going to the park
    end every session with something the puppy can do
    let the puppy meet calm and friendly dogs
washing a car
    wash a car by hand | get a car properly clean
    washing a car | cleaning a car by hand
    a glossy and streak-free car | paint that shines like new
    park the car in the shade before starting
    rinse the loose dirt off with plenty of water
    work from the roof down to the wheels
    use separate buckets for soap and for rinsing
    dry the paint with a soft microfibre towel
    clean the wheels with a brush of their own
kitchen knife
    sharpen a kitchen knife | keep a kitchen knife sharp
    sharpening knives | keeping a knife sharp
    a blade that glides through a tomato | a keen and even edge
    soak the whetstone in water before using it
    hold the blade at a steady, shallow angle
    draw the whole edge across the stone in smooth strokes
    finish on the fine side of the stone
    test the edge on a sheet of paper
    store the knife in a block or on a magnet strip
hanging a picture
    hang a picture straight | put up a heavy picture frame
    hanging pictures | putting up a picture frame
    a picture that hangs straight | a wall that looks finished
    mark the height of the hook with a pencil
    use a spirit level before drilling the hole
    choose a wall plug that suits the kind of wall
    check the wall for cables with a detector
    try the arrangement on the floor beforehand
    hang the middle of the picture at eye level
clogged drain
    unclog a slow drain | clear a blocked kitchen sink
    clearing a drain | unblocking a sink
    a sink that empties quickly | a drain that runs freely
    place a bucket under the trap before opening it
    seal the overflow with a wet cloth before plunging
    pull the hair out with a bent wire
    rinse the pipe with plenty of hot tap water
    cover the plughole with a fine strainer from now on
    scrub the trap with an old toothbrush
photography
    take better photographs | take nice pictures of people
    taking photographs | photographing people
    a photo worth framing | a picture with soft, warm light
    shoot in the soft light of early morning or evening
    move closer until the subject fills the frame
    focus on the eyes of the person
    place the subject a little off the centre
    look at the background before pressing the button
    hold the camera with both elbows against the body
guitar
    learn to play the guitar | get better on the guitar
    playing the guitar | practising the guitar
    a song that sounds smooth | a clear and ringing chord
    practise in short sessions on most days of the week
    tune the strings each time before playing
    press the string close behind the fret
    play along with a metronome at a slow tempo
    keep the guitar on a stand in plain sight
    repeat the change between chords without strumming
drawing
    draw a lifelike portrait | get better at sketching faces
    drawing portraits | sketching faces
    a portrait with a true likeness | a sketch that looks alive
    sketch the big shapes lightly before any detail
    compare the distances with the length of the pencil
    squint to see the main areas of light and shade
    draw what is visible rather than what is known
    turn the reference upside down for practice
    leave the darkest shadows until the end
knitting
    knit a simple scarf | start knitting by hand
    knitting a scarf | learning to knit
    a warm and even scarf | a neat row of stitches
    choose thick, light-coloured yarn for the beginning
    count the stitches at the end of each row
    hold the yarn loosely around the fingers
    knit a small test square before the real piece
    use wooden needles, on which the yarn slips less
    block the finished piece with steam and pins
sewing a button
    sew on a button | fix a loose coat button
    sewing on buttons | replacing a lost button
    a button that stays in place | a coat that closes nicely again
    use strong thread in the colour of the fabric
    put a match under the button to leave some slack
    wind the thread around the shank before the knot
    mark the right spot with tailor's chalk
    sew a tiny backing button on the inside of thick cloth
    pull the old threads out with tweezers beforehand
compost
    make good compost | start a compost heap
    composting | keeping a compost heap
    dark and crumbly compost | rich soil for the garden
    mix green kitchen scraps with dry brown leaves
    turn the heap now and then with a fork
    keep the heap as damp as a wrung-out sponge
    chop larger pieces before adding them
    place the bin on bare soil in half shade
    cover fresh scraps with a layer of leaves
diary
    keep a diary | write in a journal every day
    keeping a diary | writing a journal
    a notebook full of memories | a clearer view of the day
    write at the same time of day, perhaps after dinner
    describe a single moment instead of the whole day
    leave the notebook and a pen on the pillow
    jot down a few key words on busy evenings
    note a small thing that went well
    read the old entries at the end of the year
meditation
    meditate at home | build a meditation habit
    meditating | practising meditation
    a quieter and clearer mind | a calm start to the day
    sit upright on a firm cushion or a chair
    follow the breath and come back to it gently
    begin with a very short session after waking up
    choose a corner of the home that is quiet
    set a soft timer and turn the phone face down
    let passing thoughts come and go like clouds
swimming
    swim with less effort | improve the front crawl
    swimming | learning the front crawl
    a long and relaxed stroke | a smooth glide through the water
    breathe out steadily while the face is in the water
    keep the hips and the legs close to the surface
    stretch the arm fully forward before pulling
    kick from the hip with loose ankles
    practise the breathing at the edge of the pool
    look at the bottom of the pool to keep the neck straight
hiking
    prepare for a long hike | plan a day in the mountains
    hiking | walking in the mountains
    a safe and happy day outdoors | a wide view from the top
    check the weather report on the evening before
    walk new boots in on short local tours
    tell somebody at home about the planned route
    dress in thin layers that come off easily
    carry a paper map besides the phone
    start early and keep a gentle pace uphill
camping
    enjoy camping in a tent | sleep well in a tent
    camping | sleeping in a tent
    a dry and cosy night outdoors | a tent that stands firmly
    pitch the tent on flat and slightly raised ground
    put an insulating mat under the sleeping bag
    practise pitching the tent in the garden
    angle the pegs away from the tent
    change into dry clothes before going to sleep
    turn the narrow end of the tent into the wind
campfire
    light a campfire | get a small fire going outdoors
    lighting a campfire | making a fire outdoors
    a warm and steady flame | a bed of glowing embers
    clear the ground around an official fire place
    gather tinder, twigs and logs before lighting anything
    build a loose little tent of dry twigs
    shield the first flame from the wind
    add thicker wood only when the twigs burn well
    pour water on the ashes before leaving
birthday party
    plan a birthday party | organise a party for a child
    planning a birthday party | organising a children's party
    a cheerful and easy party | a room full of happy guests
    send the invitations out well ahead of the day
    let the birthday child choose the theme
    prepare a quiet game and a lively one
    serve food that can be eaten with the fingers
    ask a friend to take care of the photographs
    state an end time on the invitation
dinner guests
    cook dinner for guests | host a relaxed dinner
    hosting a dinner | cooking for friends
    a long and merry evening | a table of well-fed friends
    choose a main dish that waits happily in the oven
    ask about allergies when inviting people
    set the table in the afternoon
    cook something familiar instead of a brand new recipe
    empty the dishwasher before the guests arrive
    put olives and bread out for early guests
wrapping presents
    wrap a present neatly | wrap an oddly shaped gift
    wrapping presents | wrapping an awkward gift
    a neat parcel with sharp corners | a gift that looks lovely
    measure the paper around the box before cutting
    crease every fold firmly with a fingernail
    put an odd shape in a plain box first
    use double-sided tape under the edges
    work on a hard and clean table
    hide the seam under the ribbon
moving house
    move to a new home | prepare for moving day
    moving house | packing up a home
    a calm and orderly move | a new home that works from day one
    label each box with its room and contents
    pack books into small boxes only
    sort out old things before packing anything
    keep kettle, tools and bedding in a separate box
    photograph the cables behind the television
    wrap plates upright in newspaper
wardrobe
    tidy a full wardrobe | sort out old clothes
    tidying a wardrobe | sorting clothes
    a wardrobe with room to breathe | an easy choice every morning
    take everything out and make piles on the bed
    hang clothes of the same kind side by side
    give away what has not been worn for a year
    fold jumpers instead of hanging them
    store winter coats in a box over the summer
    keep a bag for donations near the door
desk
    organise a messy desk | keep a desk tidy
    organising a desk | keeping a workplace tidy
    a clear and pleasant desk | a workplace that invites focus
    clear the surface completely and wipe it clean
    give every item a fixed place in a drawer
    sort the letters in a tray on the day they come
    tie the cables together under the table
    leave only today's work on the surface
    put pens and scissors in a cup within reach
remembering names
    remember people's names | learn the names of new colleagues
    remembering names | learning new names
    a warm greeting by name | a better memory for faces
    repeat the name aloud right after hearing it
    link the name with a vivid picture
    use the name again when saying goodbye
    write new names down on the way home
    ask politely how the name is spelled
    look at the face carefully while hearing the name
soup
    cook a tasty vegetable soup | make soup from leftovers
    making soup | cooking vegetable soup
    a hearty and fragrant soup | a warming bowl for a cold day
    soften the onions slowly in some oil
    cut the vegetables to a similar size
    add a squeeze of lemon shortly before serving
    simmer a rind of hard cheese in the broth
    keep the soup just below a rolling boil
    stir fresh herbs in at the very end
frying eggs
    fry an egg nicely | cook eggs in a pan
    frying eggs | cooking eggs in a pan
    a soft and golden egg | a creamy plate of eggs
    heat the pan gently before adding the butter
    crack the egg into a small cup beforehand
    take the pan off the heat a little early
    cover the pan briefly to set the white
    add the salt shortly before eating
    stir slowly with a soft spatula
roasting vegetables
    roast vegetables | make crisp oven potatoes
    roasting vegetables | baking potatoes in the oven
    a tray of golden vegetables | a crisp and savoury side dish
    spread the pieces out so that they do not touch
    dry the vegetables well before adding oil
    preheat the tray together with the oven
    turn the pieces halfway through the roasting
    cut hard roots smaller than soft courgettes
    toss everything with oil in a large bowl
tea
    make a good pot of tea | brew green tea properly
    making tea | brewing green tea
    a fragrant pot of tea | a mild and mellow cup
    warm the pot with hot water beforehand
    use cooler water for green leaves than for black ones
    give the leaves enough room to unfold
    keep the tea in an airtight tin
    take the leaves out when the taste is right
    fill the kettle with freshly drawn water
storing food
    keep vegetables fresh for longer | store food properly
    storing vegetables | keeping food fresh
    a fridge with little waste | crisp salad until the weekend
    wrap salad leaves in a damp kitchen towel
    store apples away from other fruit
    keep potatoes in a dark and airy place
    stand fresh herbs in a glass of water
    put older food at the front of the shelf
    write the date on every box of leftovers
pancakes
    make light pancakes | cook pancakes for breakfast
    making pancakes | cooking pancakes
    a stack of fluffy pancakes | a golden and tender pancake
    mix the batter briefly and accept a few lumps
    let the batter rest while the pan heats up
    wipe the pan with a thin film of butter
    flip the pancake when bubbles appear on top
    keep the finished ones warm in the oven
    separate the eggs and beat the whites
cleaning windows
    clean windows without streaks | wash the windows quickly
    cleaning windows | washing windows
    a window without streaks | a bright view of the street
    choose a cloudy day for the job
    brush the dust off the frame beforehand
    put a few drops of dish soap in warm water
    pull the squeegee from the top to the bottom
    wipe the rubber blade dry after every stroke
    polish the edges with a dry cotton cloth
stains
    remove a wine stain | get grass stains out of trousers
    removing stains | treating a fresh stain
    a spotless piece of cloth | a clean pair of trousers
    dab the spot with a clean white cloth
    work from the edge of the stain toward the centre
    test the cleaner on a hidden seam
    rinse the fabric from the back with cold water
    soak the cloth in soapy water overnight
    check the spot before putting the cloth in the dryer
electricity
    use less electricity at home | lower the power bill
    saving electricity | lowering the power bill
    a home that needs little power | a noticeably lower bill
    replace the old bulbs with LED lamps
    wash the laundry at a lower temperature
    connect the television to a switchable socket strip
    dry the clothes on a line when the sun shines
    put a lid on the pot while cooking
    defrost the freezer when ice builds up
saving water
    save water in the household | use less water at home
    saving water | cutting down on water use
    a smaller water bill | a thrifty home
    collect the rain from the roof in a barrel
    fit a water-saving head on the shower
    repair a dripping tap without delay
    run the dishwasher only when it is full
    water the beds in the cool of the evening
    turn the tap off while brushing the teeth
job interview
    do well in a job interview | prepare for a job interview
    preparing for a job interview | interviewing for a job
    a friendly and confident interview | a job offer that fits
    read the company's latest news on the day before
    prepare a few questions for the interviewer
    practise short answers aloud with a friend
    pick the clothes and the route in advance
    describe past work by its results
    send a short note of thanks afterwards
reading books
    read more books | make reading a daily habit
    reading more | building a reading habit
    a shelf of finished books | a peaceful hour with a novel
    carry a thin paperback in the bag at all times
    put a book where the phone usually lies
    set a boring book aside without regret
    read a few pages before turning off the light
    join a small reading group in the area
    keep a list of titles that friends recommend
chess
    get better at chess | win more chess games
    playing chess | improving at chess
    a well-played endgame | a sharper eye for tactics
    develop the knights and the bishops early
    castle soon to bring the king to safety
    solve a handful of tactics puzzles every morning
    go through lost games to find the turning point
    look at the opponent's threats before each move
    study simple endgames with few pieces
juggling
    learn to juggle | juggle three balls
    juggling | learning to juggle
    a steady pattern in the air | a little show for friends
    begin with a single ball thrown from hand to hand
    throw every ball to the height of the eyes
    stand in front of a bed while practising
    keep the elbows close to the body
    look at the highest point of the throws
    use beanbags, which stay where they fall
city cycling
    cycle safely in the city | ride to work by bicycle
    cycling in the city | commuting by bicycle
    a relaxed way to work | a safe and pleasant ride
    keep a door's width away from parked cars
    look over the shoulder before turning
    try the route on a quiet Sunday morning
    switch the lights on at dusk
    make eye contact with drivers at crossings
    check brakes and tyres before leaving
parallel parking
    park a car in a tight space | learn parallel parking
    parallel parking | parking in tight spaces
    a car parked close to the kerb | a smooth and easy parking move
    stop level with the car in front of the gap
    turn the wheel slowly while the car creeps back
    fold the mirror down to see the kerb
    practise between cardboard boxes on an empty lot
    signal early so that others can wait
    straighten the wheels before switching the engine off
family history
    research a family tree | trace the family history
    researching family history | drawing up a family tree
    a family tree with real stories | a fuller picture of the past
    record a long talk with the oldest relatives
    note the source of every date and name
    label the old photographs on the back in pencil
    search the parish books of the home village
    work backwards from the present generation
    share the findings with distant cousins
birdwatching
    start watching birds | recognise garden birds
    watching birds | identifying garden birds
    a close look at a shy bird | a notebook full of sightings
    go out soon after sunrise when birds are active
    learn the songs of the common species
    find the bird by eye before lifting the binoculars
    wear quiet clothes in dull colours
    note size, beak and behaviour before opening the guide
    sit still near water for a while
pruning roses
    prune roses | cut back a rose bush
    pruning roses | cutting back a rose bush
    a rose bush full of blooms | a strong and airy shrub
    cut just above a bud that faces outward
    take the dead and crossing stems out at the base
    clean the blades with alcohol between plants
    wait until the forsythia blooms in spring
    make a slanted cut so that rain runs off
    open the middle of the bush to the light
planting a tree
    plant a young tree | plant an apple tree
    planting a tree | planting fruit trees
    a young tree that takes root | a healthy crown of leaves
    dig a hole much wider than the root ball
    keep the graft above the level of the soil
    water the tree deeply through its early summers
    tie the trunk to a stake with a soft band
    soak the roots in a bucket beforehand
    spread mulch in a ring around the trunk
lawn
    grow a dense lawn | look after a lawn
    looking after a lawn | mowing the lawn
    a lawn without bare patches | a dense and springy lawn
    set the mower to a higher cut in dry weather
    have the blade sharpened before the season
    water seldom but deeply in the early morning
    rake the moss out in spring
    sow fresh seed on thin patches in autumn
    change the direction of mowing every time
typing
    learn touch typing | type faster on a keyboard
    touch typing | learning to type
    a fast and even rhythm | a page typed without looking down
    rest the index fingers on the marked keys
    cover the keyboard with a cloth while practising
    aim for correct letters and let speed follow
    keep the wrists straight and the shoulders loose
    type whole words instead of single letters
    practise in short daily lessons
online accounts
    protect online accounts | manage passwords well
    protecting online accounts | managing passwords
    an account that stays private | an easy mind about passwords
    use a password manager for every account
    switch on the extra login code by app
    choose a long phrase of unrelated words
    print the recovery codes and lock them away
    install updates on the day they appear
    type the bank's address in by hand
computer backup
    back up a computer | keep digital photos safe
    backing up files | storing digital photos
    a complete copy of every file | an archive that can be trusted
    keep a copy on a disk outside the house
    let the backup program run by itself at night
    restore a random file from time to time
    label the disks with their date
    sort the photos into folders by year
    unplug the disk once the copy is done
taking notes
    take useful notes in class | take notes at a meeting
    taking notes | writing notes in class
    a page that makes sense later | a clear summary of the lesson
    write key words instead of full sentences
    leave a wide margin for later remarks
    read the notes again on the same evening
    draw arrows between ideas that belong together
    put date and subject at the top of the page
    summarise the page in your own words
stretching
    stretch after sport | become more flexible
    stretching | working on flexibility
    a loose and supple back | a body that moves freely
    warm the muscles up with light movement
    breathe out slowly while easing into the stretch
    hold the position without bouncing
    treat the left and the right side alike
    stretch in the evening after a warm shower
    use a belt or a towel as an extension
jam
    make strawberry jam | cook jam at home
    making jam | cooking jam
    a jar of fragrant jam | a well-set, fruity spread
    pick fruit that is ripe but still firm
    drop a little jam on a cold plate to test it
    rinse jars and lids with boiling water
    let fruit and sugar stand together overnight
    use a wide pot so that steam escapes
    stir in some lemon juice at the end
cat
    look after a cat | help a new cat settle in
    looking after a cat | settling a new cat in
    a trusting and playful cat | a content cat on the sofa
    give the cat a quiet room in the beginning
    place the litter box away from the food
    play with a feather toy before the evening meal
    let the cat come over in its own time
    brush the coat gently on a regular basis
    offer a tall scratching post near the window
"""


def _topics(text: str) -> dict[str, dict[str, list[str]]]:
    found = {}
    for block in re.split(r"\n(?=\S)", text.rstrip()):
        name, *lines = block.split("\n    ")
        wordings = zip(("do", "doing", "result"), (line.split(" | ") for line in lines))
        found[name] = {**dict(wordings), "tips": lines[3:]}
    return found


TOPICS = _topics(_TOPICS)

DO_QUESTIONS: list[str] = [
    "How do I {do}?",
    "What is the best way to {do}?",
    "Can you tell me how to {do}?",
    "I want to {do}. What should I keep in mind?",
    "What would help me to {do}?",
    "Where do I begin if I want to {do}?",
    "Could you explain how a beginner can {do}?",
    "My goal this month is to {do}. What do you suggest?",
    "What does it take to {do}?",
    "How would you {do}?",
    "I have been trying to {do}. Any ideas?",
    "What should I know before I {do}?",
    "Is there a reliable way to {do}?",
    "Please give me a short tip on how to {do}.",
    "What makes it easier to {do}?",
    "My sister wants to {do}. What can I tell her?",
]

DOING_QUESTIONS: list[str] = [
    "What is your advice on {doing}?",
    "Do you have a tip for {doing}?",
    "I am new to {doing}. What matters most?",
    "I keep struggling with {doing}. What can I change?",
    "How should a beginner approach {doing}?",
    "What do experienced people know about {doing}?",
    "What is the secret of {doing}?",
    "Could you help me with {doing}?",
    "What makes {doing} easier?",
    "Tell me something useful about {doing}.",
    "A friend asked me about {doing}. What should I say?",
    "What do people often overlook about {doing}?",
    "Can {doing} be made simpler?",
    "I would like to get better at {doing}. How?",
    "What is a sensible first step in {doing}?",
    "Which habit helps most with {doing}?",
]

# The sentence that carries the topic's tip, neutral ones and ones of each attribute.
TIP_SENTENCES: list[str] = [
    "{tip}.",
    "{tip}.",
    "{tip}.",
    "{tip}, if possible.",
    "A good start is to {tip}.",
    "It helps to {tip}.",
    "Try to {tip}.",
    "First of all, {tip}.",
    "One useful habit is to {tip}.",
    "For {doing}, it pays to {tip}.",
    "What matters most is to {tip}.",
    "Ideally, {tip}.",
    "To {do}, {tip}.",
    "A piece of advice is to {tip}.",
    "My suggestion is to {tip}.",
    "The simplest step is to {tip}.",
    "Make a point to {tip}.",
    "Before anything else, {tip}.",
    "I would {tip}.",
    "Whatever the circumstances, {tip}.",
]

ATTRIBUTE_TIP_SENTENCES: dict[str, list[str]] = {
    "example": [
        "{tip}, as {who} once did.",
        "{who} showed me how to {tip}.",
        "{who} used to {tip}.",
        "{when}, {who} decided to {tip}.",
        "Somebody I met liked to {tip}.",
        "I remember how {who} chose to {tip}.",
        "A true story starts with the advice to {tip}.",
        "Some parents I know used to {tip}.",
        "What {who} did was to {tip}.",
        "One household made it a custom to {tip}.",
        "{who} once learned to {tip}.",
        "One family I visited liked to {tip}.",
        "People tell of {who}, who learned to {tip}.",
    ],
    "quantity": [
        "Step {n}: {tip}.",
        "At least {n} times, {tip}.",
        "Rule number {n}: {tip}.",
        "In {n} simple moves, {tip}.",
        "Of {n} useful steps, number 1 is to {tip}.",
        "Day 1: {tip}.",
        "Item {n} on the list is to {tip}.",
        "Take {n} turns to {tip}.",
        "As task {n}, {tip}.",
        "Half of the job is to {tip}.",
        "Within {n} minutes, {tip}.",
        "Priority {n}: {tip}.",
        "Two things count, and one is to {tip}.",
    ],
    "question": [
        "Why not {tip}?",
        "What if you simply {tip}?",
        "Could one perhaps {tip}?",
        "Any objection to this idea: {tip}?",
        "Would it be possible to {tip}?",
        "Is it an option to {tip}?",
        "Did anyone ever mention that it helps to {tip}?",
        "Shall we agree to {tip}?",
        "Might it help to {tip}?",
        "Is there time to {tip}?",
        "Do you already {tip}?",
        "Who would refuse to {tip}?",
        "Does it sound strange to {tip}?",
    ],
    "warning": [
        "Never forget to {tip}.",
        "Be sure to {tip}, or else.",
        "Only the careless fail to {tip}.",
        "To stay out of trouble, {tip}.",
        "It is risky not to {tip}.",
        "To prevent mishaps, {tip}.",
        "For safety's sake, {tip}.",
        "Do not fail to {tip}.",
        "Those who forget to {tip} are soon sorry.",
        "Against nasty surprises, {tip}.",
        "It would be a mistake not to {tip}.",
        "Trouble looms for anyone who fails to {tip}.",
        "Please do not neglect to {tip}.",
    ],
    "reason": [
        "There is a good reason to {tip}.",
        "It is logical to {tip}.",
        "For simple causal reasons, it pays to {tip}.",
        "Experience explains why people {tip}.",
        "It stands to reason that one should {tip}.",
        "Since causes matter more than symptoms, {tip}.",
        "The rationale is clear: {tip}.",
        "Consider why professionals {tip}.",
        "As the effect is lasting, {tip}.",
        "Because everything is connected, {tip}.",
        "It follows from the basics that one should {tip}.",
        "For reasons of principle, {tip}.",
        "The principle is simple: {tip}.",
    ],
}

PEOPLE: list[str] = [
    "Maria",
    "Tom from next door",
    "Aisha",
    "old Mr Lindqvist",
    "my cousin Jonas",
    "my twin brother",
    "Priya",
    "Aunt Carmen",
    "our postman",
    "a student named Wei",
    "a friend's grandfather",
    "Samira",
    "a nurse I know",
    "Olek",
    "the librarian",
    "Hannah",
    "a retired teacher",
    "Diego",
    "Kenji",
    "the woman upstairs",
    "our bus driver",
    "a former boss",
    "Fatima",
    "a local farmer",
]

TIMES: list[str] = [
    "last spring",
    "some summers ago",
    "back in March",
    "during the holidays",
    "one rainy day",
    "a few years ago",
    "in 2019",
    "last autumn",
    "one Sunday",
    "last January",
    "in college",
    "last October",
    "last winter",
    "just before Easter",
    "in Leeds",
    "in the old flat",
    "the other day",
    "back in 1998",
]

NUMBERS: list[str] = ["2", "3", "4", "5", "6", "7", "8", "9", "10", "12", "15", "20", "25", "30", "40"]

# Each attribute is a sentence about the tip. Many wordings, so that no phrase stands for the attribute. The order is
# the order of the ring: the first three, which small language models tell apart most easily, are the default.
ATTRIBUTES: dict[str, list[str]] = {
    "example": [
        "For example, {who} did this {when} and was soon enjoying {result}.",
        "{who} tried exactly that {when}, and a week later there was {result}.",
        "Picture {who} {when}: hesitant at the start, then quietly proud of {result}.",
        "Take the case of {who}, whose efforts began like this {when} and led to {result}.",
        "{when}, {who} started the same way and ended up with {result}.",
        "A case from real life: {who} did so {when} and got {result}.",
        "{when}, I watched {who} do it, and you should have seen {result}.",
        "That was how {who} managed it {when}, and {result} followed without any drama.",
        "Consider {who}, who gave it a go {when} and was rewarded with {result}.",
        "The same thing happened to {who} {when}, and the whole family admired {result}.",
        "By way of illustration, {who} worked this way {when} and achieved {result}.",
        "{who} comes to mind: a single change made {when}, and suddenly there was {result}.",
        "It went well for {who}, who tried it {when} and bragged about {result}.",
        "Imagine {who} {when}, trying this and finding {result} a little later.",
        "When {who} attempted {doing} {when}, this very step brought {result} in the end.",
        "For instance, {who} adopted this {when} and has reported {result} ever since.",
        "{who} had given up on {doing}, heard of this {when}, and finally got {result}.",
        "To name somebody you may know, {who} swore by it {when} and achieved {result}.",
        "{who} followed this advice {when}, and there, to my surprise, stood the proof: {result}.",
        "By sheer luck {who} stumbled on it {when} and discovered {result}.",
        "There is an anecdote about {who}, who learned it {when} and gained {result}.",
        "A real story goes with it: {when}, {who} asked me over to see {result}.",
        "Here is what {who} told me: a modest trial {when}, and out came {result}.",
        "{who}, a complete novice, proved it {when} and earned {result}.",
        "Why believe it? Just ask {who}, who tried it {when} and got {result}.",
        "One concrete story is that of {who}, who did it {when} and found {result}.",
        "Among my acquaintances, {who} made the switch {when} and gained {result} from it.",
        "A class visited {who} {when}, saw this in practice and talked about {result}.",
        "Such was your fellow learner {who}, who doubted it {when} but then enjoyed {result}.",
        "Think of {who}, who changed just this detail {when} and ended with {result}.",
    ],
    "quantity": [
        "Allow about {n} minutes for it and repeat it {n} times before judging {result}.",
        "To reach {result}, go through {n} steps and check the outcome after {n} days.",
        "Spend roughly {n} percent of the total time on it and 10 percent on checking.",
        "Do it {n} times a month, and review {result} after {n} weeks or so.",
        "Expect around {n} rounds of practice before {result}, and log at least {n}.",
        "How long does it take? In figures: {n} minutes of preparation and {n} of work.",
        "Out of 50 attempts at {doing}, count on at least {n} that give {result}.",
        "Divide the job into {n} equal parts and allow {n} hours for every part.",
        "A budget of {n} dollars and a total of {n} hours is plenty for {doing}.",
        "Rate {result} on a scale from 1 to {n} and note the score each week.",
        "Reserve {n} hours of your time in week one and half of that from week {n} onward.",
        "First this, second a pause of {n} minutes, third a final look {n} hours later.",
        "Measured over {n} days, the average effort for {doing} is below {n} minutes.",
        "Go through a checklist of {n} points for {doing}, with {n} seconds for each of them.",
        "Plan {n} sessions of {doing}, space your sessions {n} days apart, and log every one.",
        "Keep the routine for {n} weeks, with {n} days on and 2 days off.",
        "The schedule for {result}: tools on day 1, practice on day 2, and a check on day {n}.",
        "After {n} rounds double the time spent, and after {n} more hold it there.",
        "A ratio of {n} parts of preparation to {n} parts of {doing} suits most people.",
        "Start at {n} repeats, add {n} more per session, and finish at 60.",
        "Keep within a limit of {n} items, {n} movements and two hours altogether.",
        "Set a timer to {n} minutes, stop for half of that, and complete {n} cycles in total.",
        "On average you reach {result} after {n} trials, give or take 2.",
        "Three things in order: the step above, a rest of {n} minutes, and {n} repeats.",
        "Increase the amount by {n} percent per week, up to a maximum of {n} repetitions.",
        "Write down {n} numbers each time: the start, the end and {n} values in between.",
        "Half of the work fits into {n} minutes, and the other half into {n} more.",
        "Per week, {n} short sessions and a single one of 2 hours add up nicely.",
        "Count slowly to {n}, repeat this {n} times, and compare the total with last week's.",
        "For {result}, reach level 1 within {n} days and level 2 in {n} more.",
    ],
    "question": [
        "Which part of {doing} gives you the most trouble at the moment?",
        "Have you tried {doing} this way before, or would it be something new?",
        "How much time is there for {doing} in an ordinary week?",
        "What does {result} look like in your mind?",
        "Could you tell me a bit more about the tools that are at hand?",
        "Is {result} the main aim here, or is there another one?",
        "Are there others in the house who would like to join in {doing}?",
        "And how has {doing} been going so far, if I may ask?",
        "Do you prefer a quick method, or is a slow and thorough one more welcome?",
        "Where do people like you usually get stuck on the way to {result}?",
        "May I ask what aroused the interest in {doing} in the first place?",
        "Would it be all right to begin with that, or is something in the way?",
        "Is it a solo effort at the moment, or does somebody lend a hand?",
        "What might still stand between you and {result}, as far as you can tell?",
        "When is the next chance to begin, and with what equipment?",
        "Shall we go through the details of {doing} together?",
        "Does that sound doable, or should I suggest something else?",
        "I wonder how it went when you tried before: did {result} come close?",
        "Tell me, please, which detail of {doing} still seems unclear or confusing.",
        "Let me know whether that suits the situation, and what else is on your mind.",
        "Would you let me hear what is already familiar about {doing}, and what is not?",
        "Why is {result} so important just now, if I may be so curious?",
        "Did anything about {doing} come as a surprise the last time?",
        "If only one thing about {doing} could be changed, what would it be?",
        "Can you picture {result} already, or does it still seem far off?",
        "Am I right to assume that {doing} is fairly new to you?",
        "Whom could you ask for an honest comment after the next attempt?",
        "What would make {doing} more pleasant from your point of view?",
        "Should it turn out differently, what would be the first sign?",
        "Under which conditions did {result} come closest until today?",
        "Has anyone demonstrated how this is done, or is it all self-taught?",
        "Out of curiosity, what is your own opinion of {doing} at this stage?",
    ],
    "warning": [
        "Be careful not to rush, though, or {result} will slip out of reach.",
        "A common mistake is to skip this when time is short, and {doing} then goes wrong.",
        "Never force anything at this point; damage done in haste is hard to repair.",
        "Watch out for overconfidence, which ruins {doing} more often than bad tools do.",
        "Ignore this and you may lose {result} just when it seemed certain.",
        "Beware of shortcuts here, as they can spoil your plans for {result} within moments.",
        "The danger lies in carelessness: a brief lapse and the chance of {result} is gone.",
        "Do not leave this out, or the trouble with {doing} will only get worse.",
        "Avoid doing too much at once, which usually ends in disappointment instead of {result}.",
        "Many people neglect it and bitterly regret that later, with {result} gone.",
        "Otherwise there is a serious risk of failure, and {result} will remain a wish.",
        "What could go wrong otherwise? A great deal, since {doing} rarely forgives sloppiness.",
        "Without this, things can go badly wrong and {result} may be ruined for good.",
        "Stop at once if something feels wrong, since pressing on tends to make matters worse.",
        "The worst error is impatience, which has wrecked {result} for countless beginners.",
        "Failing to do so invites problems that are costly, annoying and difficult to undo.",
        "One careless move can harm your whole effort, so please treat this with caution.",
        "Take care, however: overdoing it is as harmful to {result} as leaving it out.",
        "Haste is the enemy of {doing}, and those who hurry often pay dearly for it.",
        "Cutting corners at this stage backfires, leaving a mess in place of {result}.",
        "A word of caution: half-hearted attempts at {doing} do more harm than good.",
        "Trouble threatens wherever this gets forgotten, and {result} is the first thing to suffer.",
        "Under no circumstances trust blind luck here, or {result} may well be spoiled.",
        "Most failures in {doing} begin with this being overlooked, and some cannot be put right.",
        "Mind the pitfalls of {doing}: distraction and hurry cause the nastiest setbacks.",
        "Should you skip this, expect unpleasant surprises and a long wait for {result}.",
        "Bad habits creep in quickly, and once they are there, {result} is in jeopardy.",
        "Don't be fooled by early success, because {doing} punishes anyone who gets reckless.",
        "Whoever disregards it is asking for trouble, as {result} can be destroyed very easily.",
        "It would be foolish to gamble on this, with {result} at stake and much to lose.",
    ],
    "reason": [
        "This works because each later stage of {doing} leans on whatever comes earlier.",
        "The reason is that {result} depends on steady conditions far more than on talent.",
        "That matters since small differences add up, and {result} is the sum of them.",
        "Behind it lies a simple principle: fewer disturbances leave more room for {result}.",
        "It makes sense if you consider that {doing} is mainly a matter of preparation and timing.",
        "The cause of most difficulties is thereby removed, which explains the link with {result}.",
        "The effect comes from even conditions, and those in turn lead to {result}.",
        "Why does it help? Because good groundwork supports everything that rests upon it.",
        "The logic is that {doing} responds to the weakest part, and this strengthens exactly that part.",
        "As a consequence, less energy is lost along the way, and {result} becomes likelier.",
        "Thanks to this, your separate efforts at {doing} fit together, which in turn produces {result}.",
        "The underlying mechanism is balance: neither too much nor too little, hence {result}.",
        "It is effective due to a basic fact, namely that {doing} rewards consistency.",
        "{result} results from it, for the crucial conditions are then already in place.",
        "The explanation is that materials and people alike react to gradual change better than to sudden change.",
        "Therefore the process stays stable, and stability is precisely what {result} requires.",
        "What makes it so effective is the way in which it tackles the root of the matter.",
        "This addresses the source rather than the symptom, so {result} comes about naturally.",
        "Its benefit stems from the fact that {doing} consists of connected steps, each shaping the next.",
        "The purpose of this is to keep conditions constant, since {result} needs constancy above all.",
        "In that way you control the decisive factor, and {result} follows as a natural effect.",
        "Given how {doing} functions, the early phase determines the later one, which accounts for the benefit.",
        "The point is that your attention is freed for essentials, and that in turn brings about {result}.",
        "This is sound in theory as well: it lowers resistance, and low resistance promotes {result}.",
        "The connection is direct, in that order at the outset creates order in whatever depends on it.",
        "It has this influence owing to habit, since repeated conditions make {doing} almost automatic.",
        "By doing so the main source of variation disappears, and so {result} can develop undisturbed.",
        "Put differently, {result} is an effect of the right conditions, and this is what creates them.",
        "Seen from a technical angle, it evens out the differences that otherwise stand between effort and {result}.",
        "A look at the background shows why: {doing} is governed by preparation rather than by force.",
    ],
}
